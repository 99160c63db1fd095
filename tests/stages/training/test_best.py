"""The best epoch's weights: kept, given back, and the same however often the training was stopped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_training import Interrupting, config, cross_entropy, make_job
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training.callbacks.best import BestWeights
from vitcompress.stages.training.callbacks.snapshots import KeepSnapshots
from vitcompress.stages.training.job import Trained
from vitcompress.stages.training.loop import Training, train

STEPS = 6


@pytest.mark.parametrize(("images", "epoch"), [(100, 3), (10_000, 2)])
def test_the_latest_within_a_standard_error_of_the_best_is_kept_as_a_copy(images: int, epoch: int) -> None:
    best, weights = BestWeights(patience=2, images=images), {"w": torch.zeros(2)}  # 4.6 points of 100 images
    for number, top1 in ((1, 50.0), (2, 70.0), (3, 66.0), (4, 65.0), (5, 64.0)):
        weights["w"].fill_(number)
        best.offer(number, weights, top1)
    assert (best.epoch, best.state["w"].tolist()) == (epoch, [epoch, epoch])


def scripted(monkeypatch: pytest.MonkeyPatch, tops: list[float]) -> None:
    """Top-1 by epoch, whatever was learned."""
    monkeypatch.setattr(Training, "_evaluate", lambda training: (tops[training.progress.epoch - 1], None))


def fitted(context: Context, loss: Any = cross_entropy, *more: Any) -> tuple[Trained, BestWeights]:
    best = BestWeights(2, 30)  # of 30 images 7.3 points are chance
    return train(make_job(context, loss), config(checkpoint_seconds=0.0), 6, context, [best, *more]), best


def test_the_best_epochs_weights_come_back_and_training_stops(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [50.0, 80.0, 70.0, 71.0, 90.0, 90.0])
    states: list[dict[str, Tensor]] = []

    def keep(epoch: int, state: dict[str, Tensor]) -> None:
        states.append({name: value.clone() for name, value in state.items()})

    trained, best = fitted(context, cross_entropy, KeepSnapshots(keep))
    assert (trained.progress.epoch, best.epoch) == (4, 2)
    assert all(torch.equal(best.state[key], states[1][key]) for key in best.state)
    assert not torch.equal(best.state["body.1.weight"], trained.raw["body.1.weight"])
    assert [line["epoch"] for line in context.run.metrics()] == [1, 2, 3, 4]
    assert {line["judged_on"] for line in context.run.metrics()} == {"tuning"}


def test_the_last_epoch_counts_and_is_reported_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [50.0, 40.0, 60.0, 40.0, 70.0, 90.0])
    trained, best = fitted(context)
    assert (trained.progress.epoch, best.epoch) == (6, 6)
    assert [line["epoch"] for line in context.run.metrics()] == [1, 2, 3, 4, 5, 6]


SECOND_BEST = [50.0, 80.0, 70.0, 60.0, 90.0, 90.0]
"""The second epoch is the best, and two worse ones end the training before the later ones."""


@pytest.fixture(scope="module")
def whole(module_context: Context) -> BestWeights:
    """Of a training by ``SECOND_BEST`` that nobody interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, SECOND_BEST)
        return fitted(module_context)[1]


@pytest.mark.parametrize("at", [2 * STEPS, 4 * STEPS])
def test_interrupted_and_resumed_keeps_the_same_weights(
    context: Context, whole: BestWeights, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """At the end of the best epoch, and at the step after which it stops early."""
    scripted(monkeypatch, SECOND_BEST)
    with pytest.raises(RunInterrupted):
        fitted(context, Interrupting(at))
    for steps in (4 * STEPS - at, 0):  # a finished training gives the same again
        counted = Interrupting(-1)
        resumed, best = fitted(context, counted)
        assert counted.calls == steps
        assert (best.epoch, resumed.progress.epoch) == (2, 4)
        assert all(torch.equal(best.state[name], value) for name, value in whole.state.items())
    assert [line["epoch"] for line in context.run.metrics()][:4] == [1, 2, 3, 4]
