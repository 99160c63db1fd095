"""The protocol of callbacks: what is called when, and what a callback may add."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_training import config, cross_entropy, make_job

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.loop import train

HOOKS = ("start", "after_step", "after_batch", "after_evaluation", "after_epoch", "close")


class Watching(Callback):
    """Notes what is called, and counts epochs."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.epochs = 0
        for name in HOOKS:
            setattr(self, name, lambda *arguments, name=name: self.note(name))

    def note(self, name: str) -> None:
        self.calls.append(name)
        self.epochs += name == "after_epoch"

    def metrics(self) -> dict[str, Any]:
        return {"watched": self.epochs}


def test_each_hook_comes_in_its_place(context: Context) -> None:
    watching = Watching()
    train(make_job(context, batch=16), config(accumulation=3, batch_size=48), 2, context, [watching])
    epoch = ["after_batch", "after_batch", "after_step", "after_batch", "after_evaluation", "after_epoch"]
    assert watching.calls == ["start", *epoch, *epoch, "close"]
    assert [line["watched"] for line in context.run.metrics()] == [0, 1]


def test_it_is_closed_after_an_error(context: Context) -> None:
    watching = Watching()
    with pytest.raises(ResultError):
        train(
            make_job(context, lambda *given: {"labels": cross_entropy(*given)["labels"] * torch.nan}),
            config(),
            1,
            context,
            [watching],
        )
    assert watching.calls == ["start", "after_step", "after_batch", "close"]  # the first step is read at once
