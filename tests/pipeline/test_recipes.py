"""The published recipes: what docs/distillation.md says, valid as they stand, and honest about what was reproduced."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import in_process
from deciding import decided, images

from vitcompress.core.errors import UsageError
from vitcompress.pipeline import cli
from vitcompress.pipeline.api.arguments import request_of
from vitcompress.pipeline.config import RunConfig, load_layer, recipe_names, recipe_text, requested_config
from vitcompress.stages.models.geometry import meta_model

PUBLISHED = {
    "skd_deit_tiny": "+5.2 over no KD",
    "skd_deit_small": "gives no top-1",
    "skd_swin_tiny": "+1.4 over no KD",
    "em_lift": "77.53 (baseline 74.86)",
    "em_lift_mse": "no figure of its own",
    "em_widelast": "78.23 (baseline 74.86)",
    "em_widelast_spectral": "no figure of its own",
    "em_uniform": "no top-1 is quoted",
    "em_student_alone": "no top-1 is quoted",
    "dd_soft": "76.99",
    "dd_spectral_last": "76.83",
    "dd_spectral_first_last": "77.08",
    "dd_projector_first": "76.87",
    "dd_projector_last": "76.72",
}
"""Each recipe, and words of the published figure in its header."""
PAPERS = {"skd": "arXiv 2412.19055", "em": "arXiv 2511.15572", "dd": "arXiv 2511.06848"}
IMAGENET = images(1_281_167, 1000, 50_000)


@pytest.fixture(scope="module")
def run_on_a_folder() -> Iterator[Callable[[str], RunConfig]]:
    """What `compress run --config NAME --data /images` would train, on a machine without GPU and TensorRT."""

    @functools.cache
    def resolved(name: str) -> RunConfig:
        return decided(requested("--config", name, "--data", "/images"), IMAGENET)

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
    others = ("output", "num_processes", "verbose", "dry_run")
    asked = request_of(**{name: value for name, value in context.params.items() if name not in others})
    config: RunConfig = requested_config(**asked)
    return config


def test_every_row_of_the_published_table_is_a_recipe() -> None:
    assert set(recipe_names()) == {*PUBLISHED, "digits", "folder"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_trains_what_was_published(name: str, run_on_a_folder: Callable[[str], RunConfig]) -> None:
    """The values in the file were written by the version whose defaults were the papers' rules for everybody."""
    before = json.loads((Path(__file__).parent / "data" / "published_recipes.json").read_text())[name]
    decided = run_on_a_folder(name)
    config = decided.model_dump(mode="json")
    for section, values in before.items():
        now = config["data"]["augment"] if section == "augment" else config[section]
        assert {key: now[key] for key in values} == values
    assert {key: config["distill"]["augment"][key] for key in before["augment"]} == before["augment"]
    assert (decided.geometry, decided.teacher.epochs, decided.student.init_reason) == ("full", 0, "")
    assert (decided.distill.layer_decay, decided.distill.balance, decided.distill.eval_every) == (None, "fixed", 1)


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
    assert PUBLISHED[name] in header
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
    lines = in_process("recipes").out.splitlines()
    start = max(map(len, recipe_names())) + 2
    assert [line[:start].strip() for line in lines] == recipe_names()
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in lines)
    assert max(map(len, lines)) <= 120
