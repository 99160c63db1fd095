"""What a step costs, from a few real ones: for estimates before a run, and for benchmarks."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from core.context import Context
from stages.training.config import TrainingConfig
from stages.training.loop import Job, Training


@dataclass(frozen=True)
class StepCost:
    """The price of one batch."""

    images: int
    seconds: float
    """Median over the measured steps, the wait for the batch included."""
    peak_bytes: int | None
    """Peak memory; None where it cannot be told."""


def measure_steps(job: Job, config: TrainingConfig, context: Context, steps: int) -> StepCost:
    """Train for a few steps and throw the result away; nothing is written.

    Args:
        job: its loader must hold at least ``steps`` + 1 batches; the first is warm-up and not counted.
        config: of the training.
        context: device, seed and threads.
        steps: measured ones.
    """
    training = Training(job, config, 1, context)
    training.model.train()
    batches = iter(training.loader)
    times: list[float] = []
    training.monitor.memory.reset()
    for _ in range(steps + 1):
        started = time.monotonic()
        batch = next(batches)
        training.step(*batch)
        if training.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    cost = StepCost(len(batch[0]), statistics.median(times[1:]), training.monitor.memory.read())
    training.accelerator.free_memory()
    return cost
