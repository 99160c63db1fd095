"""What a training hands to trackers, and that it changes nothing about the training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_training import Interrupting, assert_bitwise_equal, config, make_job

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training.callbacks import tracked
from vitcompress.stages.training.loop import train


def test_a_resumed_training_hands_over_its_earlier_epochs_and_trains_the_same(
    context: Context, module_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first session is not tracked; it is stopped in the second of three epochs, each of six steps."""
    monkeypatch.setattr(tracked, "_SECONDS", 0.0)
    lines: list[dict[str, Any]] = []
    settings = config(log_every=2, eval_every=2)
    untracked = train(make_job(module_context), settings, 3, module_context)
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(9)), settings, 3, context)
    resumed = train(make_job(context), settings, 3, replace(context, track=lines.append))
    assert_bitwise_equal(resumed, untracked)
    epochs = [line for line in lines if "epoch" in line]
    assert [(line["epoch"], line["step"]) for line in epochs] == [(1, 6), (2, 12), (3, 18)]
    assert [line["losses"] for line in epochs] == [line["losses"] for line in context.run.metrics()]
    between = [line for line in lines if "epoch" not in line]
    assert lines.index(epochs[0]) < lines.index(between[0])
    steps = [line["step"] for line in between]
    assert steps == sorted(set(steps))
    assert all(9 < step < 18 for step in steps)
    assert all(0 < line["step_loss"] < 5 and line["settings"] == "mine" for line in between)
