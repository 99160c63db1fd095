"""The best epoch's weights: kept, given back, and the same however often the training was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Interrupting, config, cross_entropy, make_job, metrics
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training.best import BestWeights
from vitcompress.stages.training.loop import Job, Trained, train

STEPS = 6


def test_the_latest_of_those_as_good_as_the_best_is_kept_as_a_copy() -> None:
    best, weights = BestWeights(patience=2, images=100), {"w": torch.zeros(2)}  # the standard error is 4.6 points
    for epoch, top1 in ((1, 50.0), (2, 70.0), (3, 66.0), (4, 65.0), (5, 64.0)):
        weights["w"].fill_(epoch)
        best.offer(epoch, "ema", weights, top1)
    name, state, top1 = best.chosen
    assert (best.epoch, name, top1) == (3, "ema", 66.0)
    assert state["w"].tolist() == [3, 3]
    assert [best.over(epoch) for epoch in (3, 4, 5)] == [False, False, True]


def test_with_more_images_less_is_chance() -> None:
    for images, epoch in ((100, 2), (10_000, 1)):
        best = BestWeights(patience=2, images=images)
        best.offer(1, "raw", {}, 70.0)
        best.offer(2, "raw", {}, 69.0)
        assert best.epoch == epoch


def test_it_goes_on_from_what_a_checkpoint_holds() -> None:
    best, again = BestWeights(patience=2, images=100), BestWeights(patience=2, images=100)
    best.offer(3, "raw", {"w": torch.zeros(2)}, 64.0)
    best.offer(4, "raw", {"w": torch.ones(2)}, 60.0)
    again.load_state_dict(best.state_dict())
    again.offer(5, "raw", {"w": torch.zeros(2)}, 58.0)  # near what is kept, not near the best
    assert (again.epoch, again.top1, again.state["w"].tolist()) == (4, 60.0, [1, 1])
    again.offer(4, "raw", {"w": torch.zeros(2)}, 60.0)  # judged once more after a resumption
    assert again.state["w"].tolist() == [1, 1]


def scripted(monkeypatch: pytest.MonkeyPatch, tops: list[float]) -> None:
    """Top-1 by epoch, whatever was learned."""
    import vitcompress.stages.training.loop as loop

    monkeypatch.setattr(
        loop.Training, "_evaluate", lambda training: (tops[training.progress.epoch - 1], None), raising=True
    )


def fitted(context: Context, loss: Any = cross_entropy, **changes: Any) -> Trained:
    return train(make_job(context, loss, patience=2, **changes), config(checkpoint_seconds=0.0), 6, context)


def test_the_best_epochs_weights_come_back_and_training_stops(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [50.0, 80.0, 70.0, 71.0, 90.0, 90.0])  # of 30 images: 7.3 points are chance
    states: list[dict[str, Tensor]] = []

    def keep(epoch: int, state: dict[str, Tensor]) -> None:
        states.append({name: value.clone() for name, value in state.items()})

    trained = fitted(context, keep=keep)
    assert trained.best is not None
    assert (trained.progress.epoch, trained.best.epoch) == (4, 2)
    name, state, top1 = trained.chosen
    assert (name, top1) == ("raw", 80.0)
    assert all(torch.equal(state[key], states[1][key]) for key in state)
    assert not torch.equal(state["body.1.weight"], trained.raw["body.1.weight"])
    assert [line["epoch"] for line in metrics(context)] == [1, 2, 3, 4]
    assert {line["judged_on"] for line in metrics(context)} == {"tuning"}


def test_the_last_epoch_counts_and_is_reported_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [50.0, 40.0, 60.0, 40.0, 70.0, 90.0])
    trained = fitted(context)
    assert trained.best is not None
    assert (trained.progress.epoch, trained.best.epoch, trained.chosen[2]) == (6, 6, 90.0)
    assert [line["epoch"] for line in metrics(context)] == [1, 2, 3, 4, 5, 6]


SECOND_BEST = [50.0, 80.0, 70.0, 60.0, 90.0, 90.0]
"""The second epoch is the best, and two worse ones end the training before the later ones."""


@pytest.fixture(scope="module")
def whole(module_context: Context) -> Trained:
    """A training by ``SECOND_BEST`` that nobody interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, SECOND_BEST)
        return fitted(module_context)


@pytest.mark.parametrize("at", [3, 2 * STEPS, 2 * STEPS + 1, 4 * STEPS])
def test_interrupted_and_resumed_keeps_the_same_weights(
    context: Context, whole: Trained, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """In the first epoch, at the end of the best, after it, and at the step after which it stops early."""
    scripted(monkeypatch, SECOND_BEST)
    with pytest.raises(RunInterrupted):
        fitted(context, Interrupting(at))
    counted = Interrupting(-1)
    resumed = fitted(context, counted)
    assert counted.calls == 4 * STEPS - at
    assert resumed.best is not None
    assert whole.best is not None
    assert (resumed.best.epoch, resumed.chosen[2], resumed.progress.epoch) == (2, 80.0, 4)
    assert all(torch.equal(resumed.chosen[1][name], value) for name, value in whole.chosen[1].items())
    assert [line["epoch"] for line in metrics(context)][-4:] == [1, 2, 3, 4]


def test_a_finished_training_gives_the_same_again(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [80.0, 70.0, 70.0, 60.0, 90.0, 90.0])
    first, counted = fitted(context), Interrupting(-1)
    again = fitted(context, counted)
    assert counted.calls == 0
    assert all(torch.equal(again.chosen[1][name], value) for name, value in first.chosen[1].items())


def test_without_patience_nothing_of_it_is_there(context: Context) -> None:
    job: Job = make_job(context)
    trained = train(job, config(), 1, context)
    assert trained.best is None
    assert "judged_on" not in metrics(context)[0]
