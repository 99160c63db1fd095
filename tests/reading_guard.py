"""Makes everything that brings a tensor's value to the host raise within the steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from vitcompress.stages.training import loop
from vitcompress.stages.training.device import Engine
from vitcompress.stages.training.readings import Readings
from vitcompress.stages.training.terms import Terms

READS = ("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__", "__array__")


class Waiting:
    """What the guard has seen, and whether reading raises at the moment."""

    def __init__(self) -> None:
        self.forbidden, self.steps, self.reads = False, 0, 0

    @contextmanager
    def set_to(self, forbidden: bool) -> Iterator[None]:
        before, self.forbidden = self.forbidden, forbidden
        try:
            yield
        finally:
            self.forbidden = before


def guarded(patch: pytest.MonkeyPatch) -> Waiting:
    """Let steps, and what the loop does after each of them, go a GPU's way on the CPU, and reading raise there.

    Values may be read where ``Readings.read`` does it and processes agree, once in many steps; when a checkpoint is
    written; and where the terms of a loss are measured, which is rare.
    """
    found = Waiting()
    for name in ("asynchronous", "channels_last"):
        patch.setattr(Engine, name, property(lambda _: True, lambda *_: None))

    def method(name: str) -> Callable[..., Any]:
        real = getattr(Tensor, name)

        def call(tensor: Tensor, *arguments: Any, **named: Any) -> Any:
            if found.forbidden:
                raise AssertionError(f"Tensor.{name} waits for the device")
            return real(tensor, *arguments, **named)

        return call

    def within(owner: Any, name: str, *, forbidden: bool, counter: str = "") -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if counter:
                setattr(found, counter, getattr(found, counter) + 1)
            with found.set_to(forbidden):
                return real(*arguments, **named)

        patch.setattr(owner, name, call)

    for name in READS:
        patch.setattr(Tensor, name, method(name))
    within(loop.Training, "step", forbidden=True, counter="steps")
    within(loop.Training, "_settle", forbidden=True)
    within(loop.Metrics, "after_batch", forbidden=True)
    within(Readings, "read", forbidden=False, counter="reads")
    within(loop, "mean_of_all", forbidden=False)
    within(loop, "save_checkpoint", forbidden=False)
    within(Terms, "_measure", forbidden=False)
    return found
