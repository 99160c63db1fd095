"""What "auto" becomes before and after the images are known, and what is refused on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from deciding import before_data, changed, decided, images

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.pipeline.config import RunConfig, dump_yaml, merge
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import reduced_args
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.models.uniform import matching_width
from vitcompress.stages.models.weights import save_weights

LAST = tuple(reduced_args(arch)["depth"] - 1 for arch in ("deit_tiny_patch16_224", "cait_s24_224"))
"""The last layers of the reduced student and teacher."""


def pairs_of(config: RunConfig) -> list[Any]:
    """The layer pairs of each feature term."""
    return [term.pairs for term in config.distill.features]


def test_no_auto_is_left(digits: RunConfig, folder: RunConfig) -> None:
    for config in (digits, folder):
        text = dump_yaml(decided(config))
        assert ": auto" not in text
        assert "pairs: last" not in text


def test_feature_losses_are_balanced_unless_a_recipe_says_how_they_weigh(digits: RunConfig, folder: RunConfig) -> None:
    assert before_data(digits).distill.balance == "fixed"
    assert before_data(folder).distill.balance == "gradients"
    assert before_data(changed(folder, distill={"balance": "fixed"})).distill.balance == "fixed"
    assert before_data(changed(folder, distill={"features": []})).distill.balance == "fixed"


def test_resolving_again_changes_nothing(digits: RunConfig) -> None:
    once = decided(digits)
    no_reasons = {"target_reason": "", "engine_precision_reason": ""}
    assert decided(once) == once.model_copy(update={"export": once.export.model_copy(update=no_reasons)})


def test_digits_are_reduced_and_folders_are_full(digits: RunConfig, folder: RunConfig) -> None:
    small, large = before_data(digits), before_data(folder)
    assert (small.geometry, large.geometry) == ("reduced", "full")
    assert (small.teacher.model, small.student.model) == ("cait_s24_224", "deit_tiny_patch16_224")
    assert small.teacher.args == reduced_args("cait_s24_224")
    assert small.student.args == reduced_args("deit_tiny_patch16_224")
    assert large.teacher.args == large.student.args == {}
    assert pairs_of(small) == [(LAST,)]
    assert pairs_of(large) == [((11, 23),)]


def test_only_prefixed_datasets_have_named_splits(folder: RunConfig, digits: RunConfig) -> None:
    for config in (folder, digits, changed(folder, data={"train_split": "train", "val_split": "validation"})):
        data = before_data(config).data
        assert (data.train_split, data.val_split) == (None, None)
    prefixed = changed(folder, data={"source": "wds/some", "train_split": "training"})
    data = before_data(prefixed).data
    assert (data.train_split, data.val_split) == ("training", "validation")


def test_only_what_is_behind_a_url_is_copied_to_a_cache(folder: RunConfig) -> None:
    with pytest.raises(UsageError, match="is for images behind a URL"):
        before_data(changed(folder, data={"cache": "/cache"}))
    assert before_data(changed(folder, data={"source": "wds/some", "cache": "/cache"})).data.cache == "/cache"


def test_negative_layers_count_from_the_end(digits: RunConfig) -> None:
    terms = [{"pairs": [[-1, -1], [0, 0]]}, {"kind": "mse", "weight": 0.0}]
    config = before_data(changed(digits, distill={"features": terms}))
    assert pairs_of(config) == [(LAST, (0, 0)), (LAST,)]


def test_taps_that_are_no_maps_are_refused_before_any_data(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = iter([{LAST[0]: (1, 32, 4, 4)}, {LAST[1]: (1, 17, 64)}])
    monkeypatch.setattr("vitcompress.pipeline.config.checks._tap_shapes", lambda *_: next(shapes))
    with pytest.raises(UsageError, match=r"the student's tap is \[1, 32, 4, 4\], the teacher's \[1, 17, 64\]"):
        before_data(digits)
    assert before_data(changed(digits, distill={"features": []})).distill.features == ()


@pytest.mark.parametrize(("epochs", "every", "kept"), [(300, 30, 9), (15, 2, 7), (1, 1, 0)])
def test_automatic_snapshots_are_about_ten(folder: RunConfig, epochs: int, every: int, kept: int) -> None:
    config = decided(changed(folder, distill={"epochs": epochs}))
    assert config.distill.keep_every == every
    assert len(Snapshots(Path("run"), "f", epochs, every).due) == kept


def test_teacher_epochs_follow_the_classifier(folder: RunConfig) -> None:
    tuned = changed(folder, teacher={"tune_epochs": 7})
    assert decided(tuned).teacher.epochs == 7
    pretrained = changed(tuned, teacher={"init": "pretrained"})
    assert decided(pretrained, images(classes=10)).teacher.epochs == 7
    assert decided(pretrained, images(classes=1000)).teacher.epochs == 0


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"distill": {"batch_size": 2000}}, "distill.batch_size is 2000.*1438"),
        ({"distill": {"warmup_epochs": 40}}, "distill.warmup_epochs is 40.*less than 40"),
        ({"distill": {"features": [{"pairs": [[99, 0]]}]}}, "features.0.pairs has student layer 99.*0 to "),
        ({"distill": {"features": [{"pairs": [[0, 0], [0, 0]]}]}}, "a second time"),
        ({"student": {"model": "swin_tiny", "strategy": "widelast"}}, "'widelast' needs a student of equal blocks"),
        ({"student": {"strategy": "widelast", "args": {"embed_dim": 36, "num_heads": 1}}}, "no multiple"),
        ({"student": {"args": {"pretrained": True}}}, "have pretrained"),
        (
            {"student": {"model": "deit_tiny_patch16_224.fb_in1k", "init": "random"}},
            "init is 'random', so it starts from random weights",
        ),
        ({"student": {"init": "file"}}, "student.init is 'file' and student.weights is None"),
        ({"student": {"init": "random", "weights": "x.pt"}}, "student.init is 'random' and student.weights is 'x.pt'"),
        ({"student": {"init": "file", "weights": "x.pt"}}, "student weights 'x.pt' do not exist"),
        ({"student": {"uniform_width": 48}}, "uniform_width is 48, but student.strategy is 'lift'"),
        ({"student": {"strategy": "widelast", "wide_blocks": 3}}, "wide_blocks is 3, but .* give one of 1, 2"),
        ({"student": {"wide_heads": "count"}}, "wide_heads is count, but student.strategy is 'lift'.*use --strategy"),
        ({"student": {"strategy": "auto", "wide_heads": "count"}}, "wide_heads is count, but .* is 'auto'"),
        ({"student": {"strategy": "widelast", "args": {"embed_dim": 64}}}, "the teacher's, 64, is not above"),
        ({"student": {"strategy": "uniform", "uniform_width": 37}}, "uniform_width is 37, which the 2 heads .* 40"),
        ({"student": {"strategy": "uniform", "uniform_width": 32}}, "uniform_width is 32, but .* is 32 wide already"),
        ({"teacher": {"init": "file"}}, "teacher.init is 'file'"),
        ({"workers": -1}, "'workers' is -1"),
        (
            {"distill": {"views": 2}, "data": {"augment": {"repeats": 3}}},
            r"distill\.views is 2, and data\.augment\.repeats draws 3 views .* give at least 3 views, or repeats=1",
        ),
        (
            {"distill": {"views": 9, "epochs": 4, "warmup_epochs": 0}},
            r"distill\.views is 9, but 4 epochs with repeats=1 use 4 views of an image; give at most 4, or 0",
        ),
        *(
            (merge({"distill": {"views": 2}}, {section: {"augment": {"mixup": 0.8}}}),
             rf"distill\.views is 2, and {section}\.augment mixes images \(mixup 0\.8, cutmix 0\)")
            for section in ("data", "distill")
        ),
        *(
            (merge({"teacher": {"batch_size": 33}}, {section: {"augment": {"cutmix": 1.0}}}),
             rf"{section}\.augment mixes images in pairs, and teacher\.batch_size 33")
            for section in ("data", "teacher")
        ),
        ({"data": {"val_split": "test"}}, "data.val_split is 'test'.*no named splits"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(digits: RunConfig, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        decided(changed(digits, **sections))


def test_a_uniform_width_is_decided_by_the_classes(digits: RunConfig) -> None:
    args = reduced_args("deit_tiny_patch16_224")
    teacher_width = reduced_args("cait_s24_224")["embed_dim"]
    asked = changed(digits, student={"strategy": "uniform", "uniform_width": None})
    for classes in (10, 1000):
        student = decided(asked, images(classes=classes)).student
        assert student.uniform_width == matching_width("deit_tiny_patch16_224", args, classes, teacher_width)
        assert student.args == args
    given = changed(digits, student={"strategy": "uniform", "uniform_width": 40})
    assert decided(given).student.uniform_width == 40


def test_a_students_file_is_looked_into_before_anything_is_trained(digits: RunConfig, tmp_path: Path) -> None:
    student = before_data(digits).student
    assert isinstance(student.args, dict)
    path = tmp_path / "student.safetensors"
    spec = ModelSpec(arch=student.model, args=student.args, num_classes=3)
    save_weights(build_model(spec).state_dict(), path, tmp_path)
    config = changed(digits, student={"init": "file", "weights": str(path)})
    assert before_data(config).student.weights == str(path)
    save_weights({"other": torch.zeros(1)}, path, tmp_path)
    with pytest.raises(UsageError, match="no tensor that fits"):
        before_data(config)


def test_a_pretrained_tag_is_for_pretrained_students(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "vitcompress.stages.models.initial.fit_pretrained", lambda _model, name, args: asked.append((name, args))
    )
    model = "deit_tiny_patch16_224.fb_in1k"
    student = before_data(changed(digits, student={"model": model, "init": "pretrained"})).student
    assert student.model == model
    assert asked == [(model, reduced_args("deit_tiny_patch16_224"))]  # fetched before anything is trained
    with pytest.raises(UsageError, match="timm has no pretrained weights of vit_base_patch16_gap_224"):
        before_data(changed(digits, student={"model": "vit_base_patch16_gap_224", "init": "pretrained"}))


def test_a_gpu_that_is_not_here_is_the_environments_lack(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert before_data(digits).device == "cpu"
    with pytest.raises(EnvironmentLacksError, match="torch sees no GPU"):
        before_data(changed(digits, device="cuda"))


def test_the_engine_is_decided_with_its_reason(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.exporters.tensorrt.flavours.installed_flavours", dict)
    export = before_data(digits).export
    assert (export.target, export.engines) == (("onnx", "triton"), ())
    assert "TensorRT is not installed" in export.target_reason
    with pytest.raises(EnvironmentLacksError, match="tensorrt-rtx is not installed"):
        before_data(changed(digits, export={"target": ["tensorrt-rtx"]}))


@pytest.mark.parametrize(
    ("export", "built"),
    [
        ({}, ("fp16",)),
        ({"precision": ["int8", "fp16"]}, ("int8", "fp16")),
        ({"precision": ["fp32"]}, ("fp32",)),
        ({"deploy": "int8"}, ("int8",)),
        ({"precision": ["fp16"], "deploy": "fp32"}, ("fp16", "fp32")),
        ({"engine_precision": ["fp32", "int8"]}, ("fp32", "int8")),
    ],
)
def test_engines_are_built_in_fp16_or_what_was_asked_for(
    digits: RunConfig, export: dict[str, Any], built: tuple[str, ...]
) -> None:
    decided_on = before_data(changed(digits, export=export)).export
    assert decided_on.engine_precision == built
    assert bool(decided_on.engine_precision_reason) == ("engine_precision" not in export)


def test_an_engine_without_a_graph_or_without_what_is_deployed_is_refused(digits: RunConfig) -> None:
    with pytest.raises(UsageError, match=r"export\.engine_precision is int8, but .* has no int8 graph"):
        before_data(changed(digits, export={"precision": ["fp16"], "engine_precision": ["int8"]}))
    asked = {"target": ["tensorrt-rtx"], "deploy": "int8", "engine_precision": ["fp16"]}
    with pytest.raises(UsageError, match=r"deploy is int8, which is not among export\.engine_precision, fp16; add it"):
        before_data(changed(digits, export=asked))


def test_comparing_with_a_compiled_teacher_without_a_compiler_is_refused(
    digits: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitcompress.stages.training.compilation._lack", lambda _: "there is no C++ compiler (g++)")
    with pytest.raises(EnvironmentLacksError, match=r"teacher_reference=compiled needs torch\.compile, but there"):
        before_data(changed(digits, verify={"teacher_reference": "compiled"}))


def test_a_precision_whose_tool_is_missing_is_told_before_anything_runs(
    digits: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(EnvironmentLacksError, match="nvidia-modelopt"):
        before_data(changed(digits, export={"precision": ["fp8"]}))


@pytest.mark.parametrize(
    ("init", "start", "decay"), [("teacher", "untaught", None), ("teacher", "same", 0.75), ("random", "untaught", None)]
)
def test_a_controls_rates_suit_its_own_first_weights(digits: RunConfig, init: str, start: str, decay: Any) -> None:
    asked = {"control": {"kind": "labels", "start": start}, "distill": {"lr": "auto", "layer_decay": "auto"}}
    config = decided(changed(digits, student={"init": init}, **asked))
    anew = decided(changed(digits, student={"init": "random"}, **asked)).distill
    like = anew if start == "untaught" else config.distill
    assert (config.control.lr, config.control.layer_decay) == (like.lr, decay)


def test_all_problems_are_told_at_once(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError) as refused:
        before_data(changed(digits, teacher={"model": "cait_s42"}, image_size=50, device="cuda"))
    told = str(refused.value).splitlines()
    assert told[0] == "config has 2 problems:"
    assert ["torch sees no GPU" in line or "'cait_s42'" in line for line in told[1:]] == [True, True]
    with pytest.raises(UsageError) as refused:
        decided(changed(digits, teacher={"batch_size": 5000}, distill={"batch_size": 4000, "accumulation": 16}))
    assert all(f"{section}.batch_size is" in str(refused.value) for section in ("teacher", "distill"))
