"""What steps gave, on the device until it is read: loss terms and gradient norms.

To read a value from a GPU is to wait until it has done all that it was given. So the loop keeps the tensors of many
steps and reads them together. A step with a value that is not finite was not taken (``optimizer.take_step``); here it
is noticed, some steps later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vitcompress.core.errors import ResultError
from vitcompress.core.words import counted
from vitcompress.stages.training.checkpoint import Progress

IN_A_ROW = 3
"""So many steps without finite values, one after the other, end a training: it has diverged."""
IN_ALL = 10
"""More of them in all end it too: their cause does not go away."""


@dataclass
class _Batch:
    """The values of one batch."""

    epoch: int
    step: int
    """Counted from 1, as the epoch is."""
    names: tuple[str, ...]
    terms: Tensor
    """``[len(names)]``, of this process's part of the batch."""
    norm: Tensor | None = None
    """Of the gradient over all processes, where this batch ended a step."""


class Readings:
    """The values of one training's steps since they were read last."""

    def __init__(self, name: str, accelerator: Any, say: Callable[[str], None]) -> None:
        """Keep nothing yet; ``name`` is the training's, ``say`` is told of each step that was not taken."""
        self.name, self.accelerator, self.say = name, accelerator, say
        self.kept: list[_Batch] = []

    def keep_terms(self, names: tuple[str, ...], terms: Tensor, progress: Progress) -> None:
        """Keep the loss terms ``[len(names)]`` of a batch, without gradients."""
        self.kept.append(_Batch(progress.epoch + 1, progress.steps + 1, names, terms))

    def keep_norm(self, norm: Tensor) -> None:
        """Keep the gradient's norm, a scalar, of the step that the newest batch ended."""
        self.kept[-1].norm = norm

    def read(self, progress: Progress) -> None:
        """Add what was kept to ``progress``, as means over all processes; each of them calls this.

        A ResultError is raised if the first step of the training, ``IN_A_ROW`` steps one after the other, or more than
        ``IN_ALL`` steps were not taken because a value was not finite.
        """
        kept, self.kept = self.kept, []
        if not kept:
            return
        parts = [part for batch in kept for part in (batch.terms, batch.norm) if part is not None]
        values = torch.cat([part.reshape(-1) for part in parts])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="mean")
        numbers = iter(values.tolist())
        wrong = ""
        for batch in kept:
            terms = dict(zip(batch.names, islice(numbers, len(batch.names)), strict=True))
            bad = next((f"loss term '{name}' is {term}" for name, term in terms.items() if not math.isfinite(term)), "")
            if not bad:
                progress.summed += 1
                for name, term in terms.items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + term
            wrong = wrong or bad
            if batch.norm is not None:
                norm = next(numbers)
                self._judge(wrong or ("" if math.isfinite(norm) else f"gradient norm is {norm}"), batch, progress)
                wrong = ""

    def _judge(self, wrong: str, batch: _Batch, progress: Progress) -> None:
        """Count a step that was not taken because of ``wrong``, if it is; raise as ``read`` does."""
        if not wrong:
            progress.skipped_in_a_row = 0
            return
        found = f"{wrong} at epoch {batch.epoch}, step {batch.step} of {self.name}"
        progress.first_skipped = progress.first_skipped or found
        progress.skipped, progress.skipped_in_a_row = progress.skipped + 1, progress.skipped_in_a_row + 1
        if batch.step > 1 and progress.skipped_in_a_row < IN_A_ROW and progress.skipped <= IN_ALL:
            self.say(f"note: {found}; the step was not taken")
            return
        others = progress.skipped - 1
        more = f", nor were {counted(others, 'other')} up to step {batch.step}" if others else ""
        raise ResultError(
            f"{progress.first_skipped}; the step was not taken{more}. "
            "Lower the learning rate (lr) or the loss weights and run again."
        )
