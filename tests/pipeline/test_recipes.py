"""The published recipes: what DESIGN 3.3 says, valid as they stand, and honest about what was reproduced."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.records import DataRecord
from vitcompress.pipeline import cli
from vitcompress.pipeline.config import RunConfig, load_layer, merge, recipe_names, recipe_text, validate
from vitcompress.pipeline.options import requested_config
from vitcompress.pipeline.resolve import resolve_models, resolve_training
from vitcompress.stages.models.geometry import meta_model

FIRST, LAST = (0, 0), (11, 23)
ENDS = (FIRST, (1, 1), (6, 18), (7, 19), (8, 20), (9, 21), (10, 22), LAST)
STAGES = ((0, 0), (1, 1), (2, 2), (3, 3))
CAIT, TINY = "cait_s24_224", "deit_tiny_patch16_224"
SWIN = "swin_{}_patch4_window7_224"

# teacher, student, strategy, epochs, batch, share of the logits, feature terms, words of the published figure
PUBLISHED: dict[str, tuple[str, str, str, int, int, float, list[tuple[Any, ...]], str]] = {
    "skd_deit_tiny": (CAIT, TINY, "plain", 400, 512, 0.9, [("spectral", ENDS, 0.2, "pool")], "+5.2 over no KD"),
    "skd_deit_small": (
        CAIT,
        "deit_small_patch16_224",
        "plain",
        500,
        512,
        0.9,
        [("spectral", ENDS, 0.2, "pool")],
        "gives no top-1",
    ),
    "skd_swin_tiny": (
        SWIN.format("small"),
        SWIN.format("tiny"),
        "plain",
        500,
        512,
        0.9,
        [("spectral", STAGES, 0.05, "pool")],
        "+1.4 over no KD",
    ),
    "em_lift": (CAIT, TINY, "lift", 300, 2048, 0.9, [("spectral", (LAST,), 0.2, "pool")], "77.53 (baseline 74.86)"),
    "em_lift_mse": (CAIT, TINY, "lift", 300, 2048, 0.0, [("mse", (LAST,), 0.2, "pool")], "no figure of its own"),
    "em_widelast": (CAIT, TINY, "widelast", 300, 2048, 0.9, [("mse", (LAST,), 0.2, "pool")], "78.23 (baseline 74.86)"),
    "em_widelast_spectral": (
        CAIT,
        TINY,
        "widelast",
        300,
        2048,
        0.0,
        [("spectral", (LAST,), 0.2, "pool")],
        "no figure of its own",
    ),
    "em_uniform": (CAIT, TINY, "uniform", 300, 2048, 0.9, [("mse", (LAST,), 0.2, "pool")], "no top-1 is quoted"),
    "em_student_alone": (CAIT, TINY, "lift", 300, 2048, 0.0, [], "no top-1 is quoted"),
    "dd_soft": (CAIT, TINY, "plain", 300, 2048, 0.9, [], "76.99"),
    "dd_spectral_last": (CAIT, TINY, "plain", 300, 2048, 0.9, [("spectral", (LAST,), 0.2, "pool")], "76.83"),
    "dd_spectral_first_last": (
        CAIT,
        TINY,
        "plain",
        300,
        2048,
        0.9,
        [("spectral", (FIRST, LAST), 0.2, "pool")],
        "77.08",
    ),
    "dd_projector_first": (CAIT, TINY, "plain", 300, 2048, 0.9, [("mse", (FIRST,), 0.2, "projector")], "76.87"),
    "dd_projector_last": (CAIT, TINY, "plain", 300, 2048, 0.9, [("mse", (LAST,), 0.2, "projector")], "76.72"),
}
PAPERS = {"skd": "arXiv 2412.19055", "em": "arXiv 2511.15572", "dd": "arXiv 2511.06848"}
IMAGENET = DataRecord(
    config={},
    source="x",
    classes=tuple(map(str, range(1000))),
    train_images=1_281_167,
    val_images=50_000,
    split="",
    digest="",
    checked="",
)


def every_recipe(*names: str) -> Any:
    """A test for each name."""
    return pytest.mark.parametrize("name", names)


@pytest.fixture(scope="module")
def run_on_a_folder() -> Iterator[Callable[[str], RunConfig]]:
    """What `compress run --config NAME --data /images` would train, on a machine without GPU and TensorRT."""

    @functools.cache
    def resolved(name: str) -> RunConfig:
        return resolve_training(resolve_models(requested("--config", name, "--data", "/images")), IMAGENET)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setattr("vitcompress.exporters.tensorrt.flavours.installed_flavours", dict)
        yield resolved


def requested(*arguments: str) -> RunConfig:
    """The config that these options of `compress run` make."""
    # Under its group, as the program makes it: click keeps a command's first help option for good, and without the
    # group that is `--help` alone.
    with cli.cli.make_context("compress", ["run"]) as group:
        context = cli.cli.commands["run"].make_context("run", list(arguments), parent=group)
    given = {name: value for name, value in context.params.items() if name != "output"}
    config: RunConfig = requested_config(**given)
    return config


def test_every_row_of_the_published_table_is_a_recipe() -> None:
    assert set(recipe_names()) == {*PUBLISHED, "digits", "folder"}


@every_recipe(*PUBLISHED)
def test_a_published_recipe_trains_what_was_published(name: str, run_on_a_folder: Callable[[str], RunConfig]) -> None:
    config = run_on_a_folder(name)
    teacher, student, strategy, epochs, batch, alpha, features, _ = PUBLISHED[name]
    distill = config.distill
    assert (config.geometry, config.teacher.model, config.teacher.init) == ("full", teacher, "pretrained")
    assert config.teacher.epochs == 0
    assert (config.student.model, config.student.strategy) == (student, strategy)
    assert (config.student.init, config.student.init_reason) == ("random", "")
    assert (distill.epochs, distill.batch_size, distill.lr) == (epochs, batch, pytest.approx(5e-4 * batch / 512))
    assert [(term.kind, term.pairs, term.weight, term.match) for term in distill.features] == features
    assert (distill.alpha, distill.logits, distill.tau, distill.beta) == (alpha, "soft", 1.0, 1.0)
    assert distill.balance == "fixed"


@every_recipe(*PUBLISHED)
def test_a_published_recipe_resolves_as_it_did_before_defaults_fitted_the_data(
    name: str, run_on_a_folder: Callable[[str], RunConfig]
) -> None:
    """The values in the file were written by the version whose defaults were the papers' rules for everybody."""
    before = json.loads((Path(__file__).parent / "data" / "published_recipes.json").read_text())[name]
    config = run_on_a_folder(name).model_dump(mode="json")
    for section, values in before.items():
        now = config["data"]["augment"] if section == "augment" else config[section]
        assert {key: now[key] for key in values} == values
    assert config["distill"]["augment"] == before["augment"]
    assert config["distill"]["layer_decay"] is None


@every_recipe(*PUBLISHED)
def test_published_recipes_share_one_schedule_and_augmentation(name: str) -> None:
    config = validate(merge(load_layer(name), {"data": {"source": "/images"}}))
    distill, augment = config.distill, config.data.augment
    assert distill.warmup_epochs == (20 if name == "skd_swin_tiny" else 5)
    assert (distill.warmup_lr, distill.min_lr, distill.weight_decay) == (1e-6, 1e-5, 0.05)
    assert (distill.ema_decay, distill.ema_warmup, distill.clip_grad) == (0.99996, False, None)
    assert (distill.label_smoothing, augment.mixup, augment.cutmix) == (0.1, 0, 0)
    assert distill.eval_every == 1, "every epoch was evaluated"
    assert (augment.auto_augment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.4)
    assert (augment.random_erasing, augment.interpolation, augment.repeats) == (0.25, "bicubic", 3)


@pytest.mark.parametrize("name", ["skd_deit_tiny", "skd_deit_small", "skd_swin_tiny"])
def test_no_student_drops_paths(name: str, run_on_a_folder: Callable[[str], RunConfig]) -> None:
    student = run_on_a_folder(name).student
    assert isinstance(student.args, dict)
    model = meta_model(student.model, student.args)
    assert [module.drop_prob for module in model.modules() if getattr(module, "drop_prob", 0)] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_quotes_its_source_and_claims_nothing(name: str) -> None:
    header = " ".join(line.removeprefix("# ") for line in recipe_text(name).splitlines() if line.startswith("#"))
    assert PAPERS[name.partition("_")[0]] in header
    assert "Published" in header or name == "em_uniform"
    assert PUBLISHED[name][-1] in header
    assert "This project has not reproduced it" in header
    assert f"compress run --config {name} --data DIR" in header


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "digits"])
def test_a_recipe_for_folders_does_not_fall_back_on_digits(name: str) -> None:
    with pytest.raises(UsageError, match=f"recipe '{name}' is for a folder of images; give --data DIR"):
        requested("--teacher", "cait_s24", "--student", "deit_tiny", "--config", name)


def test_images_may_come_from_a_file_of_settings_or_from_set(tmp_path: Any) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("data: {source: /images}\n")
    assert requested("--config", "em_lift", "--config", str(own)).data.source == "/images"
    assert requested("--config", "em_lift", "--set", "data.source=/images").data.source == "/images"


def test_a_file_of_a_recipes_name_comes_first(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dd_soft").mkdir()
    assert load_layer("dd_soft")["distill"]["features"] == []
    (tmp_path / "em_lift").write_text("seed: 5\n")
    assert load_layer("em_lift") == {"seed": 5}


def test_the_list_is_a_table_with_one_short_line_a_recipe() -> None:
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit):
        cli.main(["recipes"])
    lines = printed.getvalue().splitlines()
    start = max(map(len, recipe_names())) + 2
    assert [line[:start].strip() for line in lines] == recipe_names()
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in lines)
    assert max(map(len, lines)) <= 120
