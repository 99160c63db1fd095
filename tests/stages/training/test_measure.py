"""Measuring a few steps, and what is read off them."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from tiny_training import config, cross_entropy, make_job
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.stages.training import measure
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.measure import StepCost, StepLine, first_images, measure_line, measure_loading


class Numbered(Dataset[tuple[Tensor, int]]):
    """Image ``i`` is all ``i``; each takes a moment to load."""

    def __init__(self, count: int, seconds: float = 0.0) -> None:
        self.count, self.seconds = count, seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(self.seconds)
        return torch.full((3, 2, 2), float(index)), index


def line(seconds: tuple[float, float], peaks: tuple[int | None, int | None] = (None, None)) -> StepLine:
    return StepLine(StepCost(2, seconds[0], peaks[0]), StepCost(4, seconds[1], peaks[1]))


def test_a_step_of_any_size_is_on_the_line_through_two_measured_ones() -> None:
    found = line((3.0, 5.0), (300, 400))
    assert [found.seconds(images) for images in (2, 4, 16)] == pytest.approx([3.0, 5.0, 17.0])
    assert [found.peak_bytes(images) for images in (2, 4, 16)] == [300, 400, 1000]


def test_no_part_of_the_line_is_negative() -> None:
    noisy, steep = line((5.0, 4.0)), line((1.0, 4.0))
    assert noisy.seconds(16) == 4.0, "a larger step is not cheaper"
    assert steep.seconds(16) == pytest.approx(16.0), "and costs at most in proportion"
    assert noisy.seconds(4) == steep.seconds(4) == 4.0


def test_the_first_images_are_repeated_where_there_are_too_few() -> None:
    images, labels = first_images(DataLoader(Numbered(3), batch_size=2), 7)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert torch.equal(images[:, 0, 0, 0], labels.float())


def test_loading_is_measured_over_as_many_passes_as_it_takes() -> None:
    rate = measure_loading(DataLoader(Numbered(4, 0.005), batch_size=2), 0.1)
    assert 20 < rate <= 200


def test_a_loader_without_a_batch_is_told() -> None:
    with pytest.raises(DataError, match="give no batch"):
        measure_loading(DataLoader(Numbered(3), batch_size=4, drop_last=True), 0.1)


def measured(context: Context, images: int, steps: int, **changes: Any) -> tuple[StepLine, list[int]]:
    """Steps over a batch of so many images, and the sizes of the batches that the loss saw."""
    sizes: list[int] = []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        sizes.append(len(images))
        return cross_entropy(model, images, labels)

    batch = [torch.zeros(images, 3, 4, 4), torch.zeros(images, dtype=torch.int64)]
    job = make_job(context, loss, **changes)
    return measure_line(job, config(batch_size=images), context, batch, steps), sizes


def test_steps_of_the_batch_and_of_half_of_it(context: Context) -> None:
    """Half of it is even, as mixup asks."""
    found, sizes = measured(context, 6, 2, mix=lambda *both: both)
    assert sizes == [2] * 3 + [6] * 3, "one warm-up and two measured steps each"
    assert (found.small.images, found.large.images) == (2, 6)
    assert found.seconds(6) == found.large.seconds > 0
    assert not (context.run.root / "checkpoints").exists()


def test_a_batch_that_the_gpu_cannot_hold_is_halved(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure.measure_steps

    def full_above_two(given: Job, *rest: Any) -> StepCost:
        if (given.train.batch_size or 0) > 2:
            raise torch.OutOfMemoryError
        return real(given, *rest)

    monkeypatch.setattr(measure, "measure_steps", full_above_two)
    found, _ = measured(context, 8, 1)
    assert (found.small.images, found.large.images) == (1, 2)
