"""Weights from outside: what fits is loaded, what does not is told, and nothing in a file is ever run."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from small_run import TEACHER, TEACHER_ARGS, seeded_model
from timm.layers import resample_abs_pos_embed

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.weights import load_checkpoint, load_own, save_weights


def spec(classes: int = 10) -> ModelSpec:
    return ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=classes)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return seeded_model(spec(), 1).state_dict()


def load(path: Path, classes: int = 10) -> tuple[torch.nn.Module, bool]:
    model = seeded_model(spec(classes), 2)
    return model, load_checkpoint(model, path)


def assert_equal(model: torch.nn.Module, state: dict[str, torch.Tensor], but: str = "-") -> None:
    own = model.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in state if not name.startswith(but))


def test_a_checkpoint_is_loaded_bit_by_bit(tmp_path: Path, state, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.stages.models.weights.adapt", lambda *_: pytest.fail("converted"))
    save_file(state, tmp_path / "teacher.safetensors")
    model, fits = load(tmp_path / "teacher.safetensors")
    assert fits
    assert_equal(model, state)


@pytest.mark.parametrize("how", ["other classes", "no classifier", "half a classifier"])
def test_a_classifier_that_does_not_fit_is_left_as_it_was(tmp_path: Path, state, how: str) -> None:
    classes = 4 if how == "other classes" else 10
    gone = {"other classes": (), "no classifier": ("head.bias", "head.weight"), "half a classifier": ("head.bias",)}
    save_file({name: v for name, v in state.items() if name not in gone[how]}, tmp_path / "teacher.safetensors")
    initial = seeded_model(spec(classes), 2).state_dict()
    model, fits = load(tmp_path / "teacher.safetensors", classes)
    assert not fits
    assert_equal(model, state, but="head.")
    assert all(torch.equal(model.state_dict()[name], initial[name]) for name in ("head.weight", "head.bias"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), "missing: norm.weight"),
        (lambda state: state.update({"blocks.9.norm1.bias": torch.zeros(3)}), r"unexpected: blocks\.9\.norm1\.bias"),
        (
            lambda state: state.update({"norm.weight": torch.zeros(3)}),
            r"wrong shape: norm\.weight \(3,\) instead of \(48,\)",
        ),
        (
            lambda state: state.update({"pos_embed": torch.zeros(1, 19, 48)}),
            r"wrong shape: pos_embed \(1, 19, 48\) instead of \(1, 17, 48\)\); check",
        ),
        (
            lambda state: state.update({"patch_embed.proj.weight": torch.zeros(7)}),
            r"wrong shape: .*\(7,\) instead of \(48, 3, 8, 8\); timm cannot convert them: shape .*\); check",
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
        load_checkpoint(model, tmp_path / "teacher.safetensors")
    assert_equal(model, before)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, state) -> None:
    save_file({**state, "norm.bias": torch.full((48,), float("-inf"))}, tmp_path / "teacher.safetensors")
    with pytest.raises(UsageError, match=r"hold values that are not finite \(norm\.bias\)"):
        load(tmp_path / "teacher.safetensors")


def test_positions_of_another_size_are_resampled_and_told(tmp_path: Path) -> None:
    finer = seeded_model(ModelSpec(arch=TEACHER, args={**TEACHER_ARGS, "img_size": 56}, num_classes=10), 1).state_dict()
    save_file(finer, tmp_path / "teacher.safetensors")
    model, told = seeded_model(spec(), 2), []
    assert load_checkpoint(model, tmp_path / "teacher.safetensors", tell=told.append)
    assert told == [f"{len(finer)} tensors of the whole file; position embeddings resampled from 7x7 to 4x4"]
    assert_equal(model, {name: value for name, value in finer.items() if name != "pos_embed"})
    torch.testing.assert_close(model.state_dict()["pos_embed"][:, 0], finer["pos_embed"][:, 0], rtol=0, atol=0)
    expected = resample_abs_pos_embed(finer["pos_embed"], [4, 4], [7, 7])
    torch.testing.assert_close(model.state_dict()["pos_embed"], expected, rtol=0, atol=0)


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


@pytest.mark.parametrize(("variant", "names"), [("", ("head",)), ("distilled_", ("head", "head_dist"))])
def test_classifier_names_of_one_and_of_two_heads(variant: str, names: tuple[str, ...]) -> None:
    with torch.device("meta"):  # no name depends on a weight
        network = timm.create_model(f"deit_tiny_{variant}patch16_224")
    assert family_of(network).classifier(network) == names
