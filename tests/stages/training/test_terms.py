"""The terms of a loss against each other: measured without a trace, balanced, and the same after an interruption."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_training import Interrupting, Tiny, assert_bitwise_equal, config, make_job
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training.checkpoint import Progress
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.terms import Compared, Terms

TARGET = 0.5


def two_terms(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    logits = model(images)
    return {"labels": F.cross_entropy(logits, labels), "features": (logits - 3).square().mean()}


def compared(model: Any, target: float) -> Compared:
    return Compared(tuple(model.body[1].parameters()), {"features": target} if target else {})


def job(context: Context, target: float | None = TARGET, loss: Any = two_terms, **changes: Any) -> Job:
    """``target``: of the features; 0 to watch alone, None for neither."""
    made = make_job(context, loss, **changes)
    return made if target is None else replace(made, compared=compared(made.model, target))


def terms_of(target: float, model: Tiny, accumulation: int = 1) -> Terms:
    return Terms(compared(model, target), make_accelerator("cpu"), model, accumulation, compiled=False)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(8, 3, 4, 4, generator=generator), torch.arange(8) % 3


def norm_of(term: Tensor, model: Tiny) -> float:
    model.zero_grad()
    term.backward(retain_graph=True)
    found = math.sqrt(sum(float(own.grad.double().square().sum()) for own in model.body[1].parameters()))
    model.zero_grad()
    return found


def never(_: nn.Module) -> dict[str, Tensor]:
    raise AssertionError("the terms of this batch were computed a second time")


def test_norms_are_those_of_a_backward_pass_of_each_term_alone() -> None:
    model = Tiny().eval()
    terms, progress = two_terms(model, *batch()), Progress()
    weighed = terms_of(0.0, model).weighed(terms, progress, never)
    assert progress.gradient_norms == pytest.approx({name: norm_of(term, model) for name, term in terms.items()})
    assert (weighed, progress.scales) == (terms, {})
    assert all(own.grad is None for own in model.parameters())


def test_a_balanced_term_pulls_at_its_share_of_the_others_together() -> None:
    """Gradients that point against each other leave little to take a share of."""
    model = Tiny().eval()
    logits = model(batch()[0])
    terms = {"up": logits.mean(), "down": -0.9 * logits.mean(), "features": 1e4 * logits.square().mean()}
    weighed = terms_of(TARGET, model).weighed(terms, progress := Progress(), never)
    together = norm_of(terms["up"] + terms["down"], model)
    assert norm_of(weighed["features"], model) == pytest.approx(TARGET * together, rel=1e-4)
    assert progress.gradient_norms["features"] == pytest.approx(TARGET * together, rel=1e-3)
    assert progress.gradient_norms["up"] == pytest.approx(10 * together, rel=1e-3)
    assert weighed["up"] is terms["up"]


@pytest.mark.parametrize(("factor", "scale"), [(16.0, 0.25), (0.0, 1.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_a_factor_moves_half_of_the_way_to_what_is_measured(factor: float, scale: float) -> None:
    """A gradient that is zero or not finite says nothing, and leaves it."""
    model = Tiny().eval()
    terms, watched = two_terms(model, *batch()), terms_of(TARGET, model)
    watched.weighed(terms, progress := Progress(), never)
    first = progress.scales["features"]
    progress.steps = progress.batches = 1
    watched.weighed({**terms, "features": factor * terms["features"]}, progress, never)
    assert progress.scales["features"] == pytest.approx(first * scale)


def measured_at(target: float, accumulation: int, epochs: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(epoch, batch) of those that are measured, of 10 batches an epoch."""
    model, found = Tiny().eval(), []
    watched, progress = terms_of(target, model, accumulation), Progress()
    monkeypatch.setattr(watched, "_measure", lambda _, progress: found.append((progress.epoch, progress.batches)))
    terms = two_terms(model, *batch())
    for progress.epoch in range(epochs):
        for progress.batches in range(10):
            watched.weighed(terms, progress, never)
            progress.steps += (progress.batches + 1) % accumulation == 0
    return found


def test_balanced_terms_are_measured_often_at_first_and_watched_ones_once_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measured_at(0.0, 1, 3, monkeypatch) == [(0, 0), (1, 0), (2, 0)]
    early = [(0, 0), (0, 1), (0, 2), (0, 4), (0, 8)]
    assert measured_at(TARGET, 1, 3, monkeypatch) == [*early, (1, 0), (1, 6), (2, 0)]
    assert measured_at(TARGET, 2, 2, monkeypatch) == [(0, 0), (0, 2), (0, 4), (0, 8), (1, 0), (1, 6)]


@pytest.mark.parametrize("compile_", ["off", "on"])
def test_watching_changes_no_bit_of_the_training(context: Context, tmp_path: Path, compile_: Any) -> None:
    """The network drops activations, so a generator that moved would show. `on`: the terms are computed again."""
    settings = config(compile=compile_)  # the loop compiles nothing itself
    watched = train(job(context, 0.0, folder=tmp_path / "watched"), settings, 3, context)
    plain = train(job(context, None, folder=tmp_path / "plain"), settings, 3, context)
    assert_bitwise_equal(watched, plain)
    assert watched.progress.gradient_norms.keys() == {"labels", "features"}
    assert plain.progress.gradient_norms == {}


def test_a_balanced_training_goes_on_to_the_same_weights_and_metrics(context: Context, tmp_path: Path) -> None:
    whole = train(job(context, folder=tmp_path), config(), 3, context)
    with pytest.raises(RunInterrupted):
        train(job(context, loss=Interrupting(7, two_terms)), config(), 3, context)
    again = train(job(context), config(), 3, context)
    assert_bitwise_equal(again, whole)
    for key in ("scales", "gradient_norms", "first"):
        assert getattr(again.progress, key) == getattr(whole.progress, key)
    lines = context.run.metrics()[-3:]
    for line in lines:
        assert sum(line["shares"].values()) == pytest.approx(1)
        assert line["shares"]["features"] == pytest.approx(line["losses"]["features"] / line["loss"])
        assert line["scales"]["features"] > 0
    assert len({line["gradient_norms"]["labels"] for line in lines}) == 3
    assert again.progress.first == {key: lines[0][key] for key in ("losses", "gradient_norms")}
