"""What a training costs, from a few real steps: for estimates before a run, and for benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError, EnvironmentLacksError
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.device import fast_products
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import Training
from vitcompress.stages.training.memory import PeakMemory, release_unused
from vitcompress.stages.training.precision import settle_precision


@dataclass(frozen=True)
class StepCost:
    """The price of one batch."""

    images: int
    seconds: float
    """Median over the measured steps, the wait for the batch included."""
    peak_bytes: int | None
    """Peak memory; None where it cannot be measured."""


@dataclass(frozen=True)
class StepLine:
    """The price of a batch of any size: the line through two measured ones, neither part of which is negative."""

    small: StepCost
    large: StepCost

    def seconds(self, images: int) -> float:
        """Return the seconds of a step of so many images."""
        return _on_line(self.small.images, self.small.seconds, self.large.images, self.large.seconds, images)

    def peak_bytes(self, images: int) -> int | None:
        """Return the peak of a step of so many images; None where memory cannot be measured."""
        low, high = self.small.peak_bytes, self.large.peak_bytes
        if low is None or high is None:
            return None
        return round(_on_line(self.small.images, low, self.large.images, high, images))


def _on_line(x0: float, y0: float, x1: float, y1: float, x: float) -> float:
    """Return the value at ``x`` of the line through both points; exact at ``x1``, rising, and not below 0 at 0."""
    slope = (y1 - y0) / (x1 - x0) if x1 > x0 else y1 / x1
    return y1 + min(max(slope, 0.0), y1 / x1) * (x - x1)


def measure_steps(job: Job, config: TrainingConfig, context: Context, steps: int) -> StepCost:
    """Train for ``steps`` after one of warm-up, and throw the result away; the loader must hold as many batches."""
    release_unused()
    training = Training(replace(job, compared=None), config, 1, context)  # measured terms would lengthen a few steps
    settle_precision(training)
    training.train_mode()
    batches = iter(training.loader)
    times: list[float] = []
    memory = PeakMemory(training.accelerator.device)
    memory.reset()
    with fast_products(training.accelerator.device):
        for _ in range(steps + 1):
            started = time.monotonic()
            batch = next(batches)
            training.step(*batch)
            if training.accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - started)
    cost = StepCost(len(batch[0]), statistics.median(times[1:]), memory.read())
    training.accelerator.free_memory()
    return cost


def measure_line(job: Job, config: TrainingConfig, context: Context, batch: Sequence[Tensor], steps: int) -> StepLine:
    """Measure steps over one batch in memory and over half of it; smaller ones where the GPU cannot hold them.

    The job's own loader is not read; ``config`` is for one process and without accumulation. An EnvironmentLacksError
    is raised if the GPU cannot hold a step of two images.
    """
    images = len(batch[0])
    while True:
        try:
            costs = []
            for count in (_half(images, even=job.mix is not None), images):
                loader = _in_memory([part[:count] for part in batch], steps + 1)
                costs.append(measure_steps(replace(job, train=loader), config, context, steps))
            return StepLine(*costs)
        except torch.OutOfMemoryError as error:
            if images <= 2:
                raise EnvironmentLacksError(
                    f"{job.name}: the GPU has no memory for a step of {images} images; use smaller networks."
                ) from error
            images = _half(images, even=True)


def _half(images: int, *, even: bool) -> int:
    """Return half of a batch; ``even``, as mixup asks: of 2 or 3 images, all of them."""
    half = max(1, images // 2)
    return half - half % 2 or images if even else half


def _in_memory(batch: Sequence[Tensor], count: int) -> DataLoader[Any]:
    """Return a loader that gives the same batch ``count`` times at no cost."""
    kept = [part.pin_memory() if torch.cuda.is_available() else part for part in batch]
    numbers: Any = range(len(batch[0]) * count)
    return DataLoader(numbers, batch_size=len(batch[0]), collate_fn=lambda _: kept)


def first_images(loader: DataLoader[Any], count: int) -> list[Tensor]:
    """Return a batch of ``count`` images and labels of a loader, from several passes if it has fewer."""
    batches: list[tuple[Tensor, Tensor]] = []
    for images, labels, *_ in _endless(loader):
        batches.append((images, labels))
        if sum(len(taken) for taken, _ in batches) >= count:
            break
    return [torch.cat(parts)[:count] for parts in zip(*batches, strict=True)]


def measure_loading(loader: DataLoader[Any], seconds: float) -> float:
    """Return a loader's images a second while nothing else runs, over about ``seconds``.

    What its processes load ahead while the first batch is waited for is not counted.
    """
    batches = _endless(loader)
    for _ in range(1 + 2 * loader.num_workers):  # each process has two batches ahead
        next(batches)
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        count += len(next(batches)[0])
    return count / (time.monotonic() - started)


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches of one pass after another; a DataError is raised if a pass gives none."""
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise DataError("the training images give no batch; set data.train_samples to what the dataset holds.")


def measure_forward(network: Callable[[Tensor], Any], images: Tensor, accelerator: Any) -> float:
    """Return a network's seconds an image ``[B, 3, S, S]`` on the accelerator's device: the faster of two passes."""
    on_device = images.to(accelerator.device)
    times = []
    for _ in range(2):
        started = time.monotonic()
        with torch.inference_mode(), accelerator.autocast():
            network(on_device)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    return min(times) / len(images)
