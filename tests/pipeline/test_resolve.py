"""What "auto" becomes, and what is refused on the way."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import EnvironmentLacksError, UsageError
from core.records import DataRecord
from pipeline.config import RunConfig, dump_yaml, merge, validate
from pipeline.resolve import resolve_models, resolve_training
from stages.models.geometry import reduced_args

LAST = tuple(reduced_args(arch)["depth"] - 1 for arch in ("deit_tiny_patch16_224", "cait_s24_224"))
"""The last layers of the reduced student and teacher."""


def changed(config: RunConfig, **sections: Any) -> RunConfig:
    return validate(merge(config.model_dump(mode="json"), sections))


def pairs_of(config: RunConfig) -> list[Any]:
    """The layer pairs of each feature term."""
    return [term.pairs for term in config.distill.features]


def data(train: int = 1438, classes: int = 10) -> DataRecord:
    names = tuple(map(str, range(classes)))
    return DataRecord(
        config={}, source="x", classes=names, train_images=train, val_images=10, split="", digest="", checked=""
    )


def resolved(config: RunConfig, train: int = 1438, classes: int = 10) -> RunConfig:
    return resolve_training(resolve_models(config), data(train, classes))


def test_no_auto_is_left(digits: RunConfig, folder: RunConfig) -> None:
    for config in (digits, folder):
        text = dump_yaml(resolved(config))
        assert ": auto" not in text
        assert "pairs: last" not in text


def test_resolving_again_changes_nothing(digits: RunConfig) -> None:
    once = resolved(digits)
    assert resolved(once) == once.model_copy(update={"export": once.export.model_copy(update={"engine_reason": ""})})


def test_digits_are_reduced_and_folders_are_full(digits: RunConfig, folder: RunConfig) -> None:
    small, large = resolve_models(digits), resolve_models(folder)
    assert (small.geometry, large.geometry) == ("reduced", "full")
    assert (small.teacher.model, small.student.model) == ("cait_s24_224", "deit_tiny_patch16_224")
    assert small.teacher.args == reduced_args("cait_s24_224")
    assert small.student.args == reduced_args("deit_tiny_patch16_224")
    assert large.teacher.args == large.student.args == {}
    assert pairs_of(small) == [(LAST,)]
    assert pairs_of(large) == [((11, 23),)]


def test_own_arguments_go_over_the_reduced_ones(digits: RunConfig) -> None:
    config = resolve_models(changed(digits, student={"args": {"depth": 5}}))
    assert isinstance(config.student.args, dict)
    assert config.student.args == {**reduced_args("deit_tiny_patch16_224"), "depth": 5}
    assert pairs_of(config) == [((4, LAST[1]),)]


def test_negative_layers_count_from_the_end(digits: RunConfig) -> None:
    terms = [{"pairs": [[-1, -1], [0, 0]]}, {"kind": "mse", "weight": 0.0}]
    config = resolve_models(changed(digits, distill={"features": terms}))
    assert pairs_of(config) == [(LAST, (0, 0)), (LAST,)]


def test_layers_of_stages_are_compared_too(folder: RunConfig) -> None:
    swin = changed(folder, student={"model": "swin_tiny", "strategy": "plain"}, teacher={"model": "swin_small"})
    assert pairs_of(resolve_models(swin)) == [((3, 3),)]


def test_taps_that_are_no_maps_are_refused_before_any_data(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = iter([{LAST[0]: (1, 32, 4, 4)}, {LAST[1]: (1, 17, 64)}])
    monkeypatch.setattr("stages.distill.model.tap_shapes", lambda *_: next(shapes))
    with pytest.raises(UsageError, match=r"the student's tap is \[1, 32, 4, 4\], the teacher's \[1, 17, 64\]"):
        resolve_models(digits)
    assert resolve_models(changed(digits, distill={"features": []})).distill.features == ()


@pytest.mark.parametrize(
    ("images", "batch"), [(1, 1), (15, 1), (16, 2), (80, 8), (1438, 128), (2048, 256), (1_281_167, 256)]
)
def test_automatic_batch_leaves_eight_steps_an_epoch(folder: RunConfig, images: int, batch: int) -> None:
    config = resolved(folder, train=images)
    assert config.distill.batch_size == config.teacher.batch_size == batch
    assert config.distill.lr == pytest.approx(5e-4 * batch / 512)


def test_automatic_batch_is_a_multiple_of_the_accumulation(folder: RunConfig) -> None:
    assert resolved(changed(folder, distill={"accumulation": 3}), train=1000).distill.batch_size == 96


@pytest.mark.parametrize(("epochs", "warmup"), [(300, 5.0), (20, 2.0), (1, 0.1)])
def test_automatic_warmup(folder: RunConfig, epochs: int, warmup: float) -> None:
    assert resolved(changed(folder, distill={"epochs": epochs})).distill.warmup_epochs == pytest.approx(warmup)


def test_given_values_are_kept(digits: RunConfig) -> None:
    config = resolved(changed(digits, distill={"batch_size": 7, "lr": 0.5, "warmup_epochs": 1.5}))
    assert (config.distill.batch_size, config.distill.lr, config.distill.warmup_epochs) == (7, 0.5, 1.5)


def test_teacher_epochs_follow_the_classifier(folder: RunConfig) -> None:
    assert resolved(folder).teacher.epochs == folder.teacher.tune_epochs
    pretrained = changed(folder, teacher={"init": "pretrained"})
    assert resolved(pretrained, classes=10).teacher.epochs == folder.teacher.tune_epochs
    assert resolved(pretrained, classes=1000).teacher.epochs == 0


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"distill": {"batch_size": 2000}}, "distill.batch_size is 2000.*1438"),
        ({"teacher": {"batch_size": 2000}}, "teacher.batch_size is 2000.*1438"),
        ({"distill": {"warmup_epochs": 40}}, "distill.warmup_epochs is 40.*less than 40"),
        ({"distill": {"features": [{"pairs": [[99, 0]]}]}}, "features.0.pairs has student layer 99.*0 to "),
        ({"distill": {"features": [{"pairs": [[0, 0], [0, 0]]}]}}, "a second time"),
        ({"student": {"model": "swin_tiny"}}, "stages of different width"),
        ({"student": {"strategy": "widelast", "args": {"embed_dim": 36, "num_heads": 1}}}, "no multiple"),
        ({"student": {"args": {"pretrained": True}}}, "have pretrained"),
        ({"student": {"model": "deit_tiny_patch16_224.fb_in1k"}}, "random weights"),
        ({"teacher": {"init": "file"}}, "teacher.init is 'file'"),
        ({"teacher": {"init": "scratch", "weights": "x.pt"}}, "teacher.init is 'scratch'"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_what_does_not_fit_is_refused(digits: RunConfig, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolved(changed(digits, **sections))


def test_a_gpu_that_is_not_here_is_the_environments_lack(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_models(digits).device == "cpu"
    with pytest.raises(EnvironmentLacksError, match="torch sees no GPU"):
        resolve_models(changed(digits, device="cuda"))


def test_the_engine_is_decided_with_its_reason(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.tensorrt.installed_flavours", dict)
    export = resolve_models(digits).export
    assert export.engine == "none"
    assert "TensorRT is not installed" in export.engine_reason
    with pytest.raises(EnvironmentLacksError, match="tensorrt-rtx is not installed"):
        resolve_models(changed(digits, export={"engine": "tensorrt-rtx"}))
