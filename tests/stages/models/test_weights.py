"""Weights from outside: what fits is loaded, what does not is told, and nothing in a file is ever run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import TEACHER, TEACHER_ARGS, seeded_model
from timm.layers import resample_abs_pos_embed

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import (
    all_finite,
    classifier_names,
    load_checkpoint,
    load_own,
    save_weights,
)


def spec(classes: int = 10) -> ModelSpec:
    return ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=classes)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return seeded_model(spec(), 1).state_dict()


def load(path: Path, classes: int = 10) -> tuple[torch.nn.Module, bool]:
    model = seeded_model(spec(classes), 2)
    return model, load_checkpoint(model, path, classifier_names(model))


def assert_equal(model: torch.nn.Module, state: dict[str, torch.Tensor], but: str = "-") -> None:
    own = model.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in state if not name.startswith(but))


@pytest.mark.parametrize("form", ["teacher.safetensors", "teacher.pth"])
def test_a_checkpoint_is_loaded_bit_by_bit(tmp_path: Path, state, form: str) -> None:
    if form == "teacher.pth":
        torch.save({"state_dict": {}, "state_dict_ema": {f"module.{n}": v for n, v in state.items()}}, tmp_path / form)
    else:
        save_file(state, tmp_path / form)
    model, fits = load(tmp_path / form)
    assert fits
    assert_equal(model, state)


@pytest.mark.parametrize("how", ["other classes", "no classifier", "half a classifier"])
def test_a_classifier_that_does_not_fit_is_left_as_it_was(tmp_path: Path, state, how: str) -> None:
    classes = 4 if how == "other classes" else 10
    given = dict(state)
    if how != "other classes":
        del given["head.bias"]
    if how == "no classifier":
        del given["head.weight"]
    save_file(given, tmp_path / "teacher.safetensors")
    initial = seeded_model(spec(classes), 2).state_dict()
    model, fits = load(tmp_path / "teacher.safetensors", classes)
    assert not fits
    assert_equal(model, state, but="head.")
    assert torch.equal(model.state_dict()["head.weight"], initial["head.weight"])
    assert torch.equal(model.state_dict()["head.bias"], initial["head.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), "missing: norm.weight"),
        (lambda state: state.update({"blocks.9.norm1.bias": torch.zeros(3)}), r"unexpected: blocks\.9\.norm1\.bias"),
        (
            lambda state: state.update({"norm.weight": torch.zeros(3)}),
            r"wrong shape: norm\.weight \(3,\) instead of \(48,\)",
        ),
        (lambda state: [state.pop(name) for name in list(state) if "blocks.1" in name], "missing: .+ and 6 more"),
    ],
)
def test_a_body_that_does_not_fit_is_told_by_name_and_not_loaded(tmp_path: Path, state, change, message: str) -> None:
    given = dict(state)
    change(given)
    save_file(given, tmp_path / "teacher.safetensors")
    model = seeded_model(spec(), 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=rf"do not fit the model \({message}"):
        load_checkpoint(model, tmp_path / "teacher.safetensors", ("head",))
    assert_equal(model, before)


def test_positions_of_another_size_are_resampled_and_told(tmp_path: Path) -> None:
    finer = seeded_model(ModelSpec(arch=TEACHER, args={**TEACHER_ARGS, "img_size": 56}, num_classes=10), 1).state_dict()
    save_file(finer, tmp_path / "teacher.safetensors")
    model, told = seeded_model(spec(), 2), []
    assert load_checkpoint(model, tmp_path / "teacher.safetensors", ("head",), tell=told.append)
    assert told == [f"{len(finer)} tensors of the whole file; position embeddings resampled from 7x7 to 4x4"]
    assert_equal(model, {name: value for name, value in finer.items() if name != "pos_embed"})
    torch.testing.assert_close(model.state_dict()["pos_embed"][:, 0], finer["pos_embed"][:, 0], rtol=0, atol=0)
    expected = resample_abs_pos_embed(finer["pos_embed"], [4, 4], [7, 7])
    torch.testing.assert_close(model.state_dict()["pos_embed"], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("pos_embed", (1, 50, 384), r"\(1, 50, 384\) instead of \(1, 17, 48\)\); check"),
        ("pos_embed", (1, 19, 48), r"\(1, 19, 48\) instead of \(1, 17, 48\)\); check"),
        (
            "patch_embed.proj.weight",
            (7,),
            r"\(7,\) instead of \(48, 3, 8, 8\); timm cannot convert them: shape .*\); check",
        ),
    ],
)
def test_what_cannot_be_resampled_is_told_in_the_files_own_sizes(
    tmp_path: Path, state, name: str, shape: tuple[int, ...], message: str
) -> None:
    save_file({**state, name: torch.zeros(shape)}, tmp_path / "teacher.safetensors")
    with pytest.raises(UsageError, match=rf"do not fit the model \(wrong shape: {name} {message}"):
        load(tmp_path / "teacher.safetensors")


def test_what_fits_goes_through_no_conversion(tmp_path: Path, state, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.stages.models.weights.adapt", lambda *_: pytest.fail("converted"))
    save_file({**state, "head.weight": torch.zeros(3, 48)}, tmp_path / "teacher.safetensors")
    assert not load(tmp_path / "teacher.safetensors")[1]


def test_own_weights_come_back_bit_by_bit(tmp_path: Path, state) -> None:
    ref = save_weights(state, tmp_path / "sub" / "model.safetensors", tmp_path)
    assert ref.path == "sub/model.safetensors"
    assert is_intact(ref, tmp_path)
    assert_equal(load_own(build_model(spec()), ref, tmp_path), state)
    again = save_weights(dict(reversed(state.items())), tmp_path / "again.safetensors", tmp_path)
    assert again.sha256 == ref.sha256  # the order of names changes nothing


def test_shared_storage_is_written_once_per_name(tmp_path: Path) -> None:
    tensor = torch.arange(6.0)
    save_weights({"a": tensor, "b": tensor, "c": tensor.view(2, 3).T}, tmp_path / "w.safetensors", tmp_path)
    loaded = load_file(tmp_path / "w.safetensors")
    assert torch.equal(loaded["b"], tensor)
    assert torch.equal(loaded["c"], tensor.view(2, 3).T)


def test_all_finite_finds_what_is_not() -> None:
    assert all_finite({"a": torch.zeros(2), "n": torch.tensor([1])})
    assert not all_finite({"a": torch.tensor([1.0, float("nan")])})
    assert not all_finite({"a": torch.zeros(2), "b": torch.tensor(float("-inf"))})


def test_classifier_names_of_one_and_of_two_heads() -> None:
    import timm

    with torch.device("meta"):  # no name depends on a weight
        one, two = (timm.create_model(f"deit_tiny_{variant}patch16_224") for variant in ("", "distilled_"))
    assert classifier_names(one) == ("head",)
    assert classifier_names(two) == ("head", "head_dist")
    assert classifier_names(torch.nn.Linear(1, 1)) == ("head",)
