"""Folding a lift: the algebra in float64 against the definition, and the folded network against the kept one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_run import data_record, distill_record, student_record
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.files import is_intact
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.fold.stage import Inputs, max_logit_difference, run
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import save_weights
from vitcompress.stages.rewrites.lift import fold

F64 = torch.float64


def matrices(ds: int, dt: int, classes: int, seed: int, kind: str = "full") -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    W = random(dt, ds)
    if kind == "zero":
        W = torch.zeros(dt, ds, dtype=F64)
    elif kind == "rank one":
        W = random(dt, 1) @ random(1, ds)
    elif kind == "constant columns":  # nothing is left once each column's mean is taken away
        W = random(1, ds).expand(dt, ds).clone()
    elif kind == "dead inputs":
        W[:, : ds // 2 + 1] = 0
    return W, 1 + random(dt), random(dt), random(classes, dt), random(classes)


def kept_logits(z_BNS: Tensor, parts: tuple[Tensor, ...], eps: float) -> Tensor:
    W, g, c, H, h = parts
    lifted = torch.nn.functional.layer_norm(z_BNS @ W.T, (W.shape[0],), g, c, eps)
    return lifted.mean(dim=1) @ H.T + h


def folded_logits(z_BNS: Tensor, folded: tuple[Tensor, Tensor, Tensor], eps: float) -> Tensor:
    root_RS, head_KS, bias_K = folded
    scale = ((z_BNS @ root_RS.T).square().sum(-1, keepdim=True) + eps).sqrt()
    return (z_BNS / scale).mean(dim=1) @ head_KS.T + bias_K


KINDS = ["full", "zero", "rank one", "constant columns", "dead inputs"]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(1, 7), st.integers(0, 10_000), st.sampled_from(KINDS),
    st.sampled_from([1e-6, 1e-5, 1e-2]),
)  # fmt: skip
def test_the_fold_is_exact(ds: int, dt: int, classes: int, seed: int, kind: str, eps: float) -> None:
    parts = matrices(ds, dt, classes, seed, kind)
    assert 1 <= len(fold(*parts)[0]) <= max(1, min(ds, dt - 1))  # centring takes one direction of Dt away
    z = torch.randn(2, 5, ds, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    wanted, found = kept_logits(z, parts, eps), folded_logits(z, fold(*parts), eps)
    scale = 1 + float(parts[3].abs().sum() * parts[1].abs().max())
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9 * scale)


def test_the_difference_is_the_largest_over_all_batches_and_nan_is_infinite() -> None:
    class Add(torch.nn.Module):
        def __init__(self, at: int, value: float) -> None:
            super().__init__()
            self.at, self.value = at, value

        def forward(self, x: Tensor) -> Tensor:
            return x + self.value * (x[:, :1] == self.at)

    images = torch.arange(10.0)[:, None].expand(10, 3)
    same = Add(-1, 1.0)
    assert max_logit_difference(same, Add(4, 0.25), images, batch=4) == 0.25
    assert max_logit_difference(same, Add(9, float("nan")), images, batch=4) == float("inf")


def make_inputs(context: Context, digits: Path, strategy: str) -> Inputs:
    student = student_record(context, strategy)
    return Inputs(data_record(str(digits), context), student, distill_record(student))


def test_a_lift_gets_two_graphs(context: Context, digits_folder: Path) -> None:
    inputs = make_inputs(context, digits_folder, "lift")
    record = run(FoldConfig(images=12), inputs, context)
    assert set(record.graphs) == set(record.models) == set(record.costs) == {"lift-kept", "lift-folded"}
    assert record.graphs["lift-kept"] == inputs.distill.weights
    assert record.max_logit_difference is not None
    assert 0 <= record.max_logit_difference < 1e-5
    assert (record.images, record.rank) == (12, 24)
    assert record.models["lift-folded"].fold_rank == 24
    assert is_intact(record.graphs["lift-folded"], context.run.root)
    folded = build_model(record.models["lift-folded"])
    folded.load_state_dict(load_file(context.run.root / record.graphs["lift-folded"].path))
    assert record.costs["lift-folded"].parameters == sum(parameter.numel() for parameter in folded.parameters())
    assert record.costs["lift-folded"].macs < record.costs["lift-kept"].macs


@pytest.mark.parametrize("strategy", ["plain", "widelast"])
def test_other_strategies_pass_through(context: Context, digits_folder: Path, strategy: str) -> None:
    inputs = make_inputs(context, digits_folder, strategy)
    record = run(FoldConfig(), inputs, context)
    assert record.graphs == {strategy: inputs.distill.weights}
    assert record.models == {strategy: inputs.student.model}
    assert (record.max_logit_difference, record.rank, record.images) == (None, None, 0)


def test_a_student_that_answers_nan_is_refused(context: Context, digits_folder: Path) -> None:
    inputs = make_inputs(context, digits_folder, "lift")
    state = load_file(context.run.root / inputs.distill.weights.path)
    state["head.bias"][0] = float("nan")
    weights = save_weights(state, context.run.root / "student" / "broken.safetensors", context.run.root)
    broken = replace(inputs, distill=inputs.distill.model_copy(update={"weights": weights}))
    with pytest.raises(ResultError, match="logits are not finite on real images"):
        run(FoldConfig(), broken, context)
