"""Find a learning rate by a range test: some steps at rates that grow from far too small to far too large.

After Smith, Cyclical Learning Rates for Training Neural Networks, arXiv 1506.01186, section 3.3.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch

from vitcompress.core.context import Context
from vitcompress.core.files import write_atomic
from vitcompress.stages.images.loaders import seeded
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.processes import from_main

STEPS = 60
LOWEST, HIGHEST = 1e-6, 3e-2
_SMOOTHING = 0.8
_BURST = 2.0
"""The test ends where the smoothed loss is this many times its lowest."""
_BACK = 5.0
"""The peak rate is this many times below the rate at which the loss was lowest: there it has begun to be too large."""


def range_test(step: Callable[[float], float], steps: int = STEPS) -> dict[float, float]:
    """Take up to ``steps`` training steps at rates from ``LOWEST`` to ``HIGHEST``, evenly spaced in the logarithm.

    Args:
        step: takes one optimizer step at this learning rate and returns its loss; not finite once it burst.
        steps: at least 2.

    Returns:
        The smoothed loss by rate, ascending; empty when the first step burst already.
    """
    losses: dict[float, float] = {}
    average = 0.0
    for index in range(steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (index / (steps - 1))
        loss = step(rate)
        if not math.isfinite(loss):
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        losses[rate] = average / (1 - _SMOOTHING ** (index + 1))
        if losses[rate] > _BURST * min(losses.values()):
            break
    return losses


def peak_rate(losses: Mapping[float, float]) -> float:
    """Return the peak rate for a training, from what ``range_test`` returns: well below the rate of the lowest loss."""
    return max(LOWEST, min(losses, key=losses.__getitem__) / _BACK) if losses else LOWEST


def found_rate(accelerator: Any, model: Any, optimizer: Any, loader: Any, job: Job, context: Context) -> float:
    """Return the rate that a range test on the training's own batches suggests.

    Weights, optimizer and generators are as before it.

    The answer is kept beside the checkpoints, so that a training that goes on keeps its rate.

    Args:
        accelerator: that prepared the next three.
        model: to be trained.
        optimizer: of it; has taken no step.
        loader: of the training images.
        job: whose loss is followed.
        context: says what was found.
    """
    path = job.folder / "lr.json"
    kept = _kept(path, job.fingerprint)
    if kept is not None:
        return kept
    weights, untouched = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    batches = _endless(loader)
    model.train()

    def step(rate: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        images, labels, *more = next(batches)
        if job.mix is not None:
            images, labels = job.mix(images, labels)
        with accelerator.autocast():
            loss = torch.stack(list(job.loss(model, images, labels, *more).values())).sum()
        accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(accelerator.reduce(loss.detach(), reduction="mean"))

    with seeded(context.seed, accelerator.process_index):
        losses = range_test(step)
    model.load_state_dict(weights)
    optimizer.load_state_dict(untouched)
    rate = peak_rate(losses)
    context.say(
        f"learning rate of {job.name}: {rate:.2g}, by a range test of {len(losses)} steps from "
        f"{LOWEST:g}: its loss was lowest at {rate * _BACK:.2g}"
    )
    if accelerator.is_main_process:
        write_atomic(path, json.dumps({"fingerprint": job.fingerprint, "rate": rate}).encode())
    return rate


def _kept(path: Path, fingerprint: str) -> float | None:
    """Return the rate found before this training was interrupted, the same in every process."""
    found = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        held = json.loads(path.read_text())
        found = float(held["rate"]) if held["fingerprint"] == fingerprint else None
    return from_main(found)


def _endless(loader: Any) -> Iterator[Any]:
    """Batches of one pass after another."""
    for epoch in count():
        loader.set_epoch(epoch)
        yield from loader
