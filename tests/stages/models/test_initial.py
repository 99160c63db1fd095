"""A student's first weights: what fits by name and shape is taken, every other tensor is told with its reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_run import STUDENT, STUDENT_ARGS, seeded_model, student_spec

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import reduced_args
from vitcompress.stages.models.initial import Fit, fit, fit_pretrained


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights of the plain student, as a pretraining would leave them."""
    return seeded_model(student_spec("plain"), 5).state_dict()


def fitted(graph: str, state: dict[str, torch.Tensor], classes: int = 10, **changes: Any) -> tuple[Any, Fit]:
    spec = student_spec(graph, classes).model_copy(update=changes)
    model = seeded_model(spec, 6)
    found = fit(model, state, spec.arch, spec.args, "weights of a test")
    assert model.load_state_dict(found.values, strict=False).unexpected_keys == []
    return model, found


def names(found: Fit, reason: str) -> set[str]:
    return {line.partition(":")[0] for line in found.not_loaded if reason in line}


def test_a_lift_takes_the_body_into_its_base(state) -> None:
    model, found = fitted("lift-kept", state)
    unused = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    inside = model.base.vit.state_dict()
    assert set(inside) == set(state) - unused
    assert all(torch.equal(value, state[name]) for name, value in inside.items())
    assert names(found, "missing in the checkpoint") == {"projector.weight", *unused}
    assert names(found, "not in the student") == {f"base.vit.{name}" for name in unused}


def test_a_widelast_takes_its_narrow_blocks(state) -> None:
    model, found = fitted("widelast", {**state, "mask": torch.zeros(3)})
    narrow = {name for name in state if name.startswith("blocks.0.")}
    stem = {name for name in state if not name.startswith(("blocks.", "norm.", "head."))}
    assert stem == {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert set(found.values) == stem | narrow | {"head.bias"}
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in found.values)
    assert "blocks.1.norm1.weight" in names(found, "not in the student")
    assert "blocks.1.enter.weight" in names(found, "missing in the checkpoint")
    assert {"norm.weight", "head.weight"} <= names(found, "other shape")
    told = {line.partition(":")[0] for line in found.not_loaded}
    assert told | set(found.values) == {*model.state_dict(), *state, "mask"}
    assert not told & set(found.values)


def test_a_shallower_student_leaves_out_the_blocks_it_does_not_have() -> None:
    args = reduced_args("beit_base_patch16_224")
    deep = seeded_model(ModelSpec(arch="beit_base_patch16_224", args=args, num_classes=3)).state_dict()
    # BEiT keeps a table of positions in each block, which timm looks up.
    spec = ModelSpec(arch="beit_base_patch16_224", args={**args, "depth": 1}, num_classes=3)
    found = fit(build_model(spec), deep, spec.arch, spec.args, "x")
    assert "blocks.1.attn.relative_position_bias_table" in names(found, "not in the student")
    assert "blocks.0.attn.relative_position_bias_table" in found.values


@pytest.mark.parametrize("other", [{}, {"unrelated": torch.zeros(2)}])
def test_weights_of_which_nothing_fits_are_refused(other) -> None:
    with pytest.raises(UsageError, match=r"weights of a test have no tensor that fits the student .*--student"):
        fitted("plain", other)


def test_weights_that_are_not_finite_are_refused(state) -> None:
    with pytest.raises(UsageError, match="not finite"):
        fitted("plain", {**state, "norm.bias": torch.full((24,), float("nan"))})


def test_what_timm_cannot_read_as_this_architecture_is_told(state) -> None:
    odd = {**state, "patch_embed.proj.weight": torch.zeros(7)}
    with pytest.raises(UsageError, match=f"weights of a test cannot be brought to {STUDENT}"):
        fitted("plain", odd)


@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("no weights exist")])
def test_pretrained_weights_out_of_reach_leave_three_ways_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    model = build_model(student_spec("plain"))

    def unreachable(*_: Any, **keywords: Any) -> None:
        assert keywords["pretrained"] is True
        raise error

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(UsageError, match="can be had neither from the local cache nor from timm's hub") as caught:
        fit_pretrained(model, STUDENT, STUDENT_ARGS)
    for way in ("student.weights=FILE", "HF_HOME", "student.init=random"):
        assert way in str(caught.value)


@pytest.mark.parametrize("graph", ["plain", "lift-kept"])
def test_a_student_takes_everything_of_its_like(graph: str) -> None:
    given = seeded_model(student_spec(graph), 8).state_dict()
    model, found = fitted(graph, given)
    assert found.not_loaded == ()
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())


def test_a_lift_of_the_same_width_does_not_mistake_the_old_norm_for_its_own(state) -> None:
    model, found = fitted("lift-kept", state, lift_width=24)
    assert not torch.equal(model.norm.weight, state["norm.weight"])
    with torch.device("meta"):  # fitting needs no weights of the student
        model = build_model(student_spec("lift-kept"))
    assert fit(model, state, STUDENT, STUDENT_ARGS, "x").values.keys() == found.values.keys()
