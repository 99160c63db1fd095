"""The training loop on a network of a few hundred weights: what it computes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_training import IMAGES, Tiny, assert_bitwise_equal, blobs, config, cross_entropy, make_job
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.stages.training.checkpoint import Progress
from vitcompress.stages.training.device import describe, make_accelerator
from vitcompress.stages.training.job import Trained
from vitcompress.stages.training.loop import Training, train


def test_it_learns_the_same_from_the_same_seed(context: Context, tmp_path: Path) -> None:
    trained = train(make_job(context), config(eval_every=3), 10, context)
    lines = context.run.metrics()
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert [line["epoch"] for line in lines if line["val_top1_raw"] is not None] == [3, 6, 9, 10]
    assert lines[-1]["step"] == trained.progress.steps == 60
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert trained.top1_raw == lines[-1]["val_top1_raw"] > 80
    assert trained.losses == lines[-1]["losses"]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert_bitwise_equal(train(make_job(context, folder=tmp_path), config(eval_every=3), 10, context), trained)


@pytest.mark.parametrize(("batch", "left"), [(8, 0), (9, 3)])
def test_images_that_fill_no_batch_are_counted_and_told(context: Context, batch: int, left: int) -> None:
    trained = train(make_job(context, batch=batch), config(), 2, context)
    assert (trained.progress.images, trained.left_over) == (IMAGES - left, left)
    told = f"each epoch trained on 45 of 48 images; {left} did not" in context.console.file.getvalue()  # type: ignore[attr-defined]
    assert told == bool(left)


def test_accumulating_two_halves_is_one_step_of_the_whole(context: Context, tmp_path: Path) -> None:
    class Ordered(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.body[3] = nn.Identity()  # dropout would draw other masks for other batches

    def trained(batch: int, accumulation: int) -> Trained:
        torch.manual_seed(0)
        loader = DataLoader(blobs(IMAGES, 0), batch_size=batch, drop_last=True)
        job = make_job(context, model=Ordered(), train=loader, folder=tmp_path / str(batch))
        return train(job, config(accumulation=accumulation), 2, context)

    whole, halves = trained(8, 1), trained(4, 2)
    assert whole.progress.steps == halves.progress.steps == 12
    for name, value in whole.raw.items():
        torch.testing.assert_close(halves.raw[name], value, rtol=1e-3, atol=1e-5)
    assert halves.losses["labels"] == pytest.approx(whole.losses["labels"], rel=1e-3)


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = Training.step

    def spy(self: Training, *batch: Tensor) -> None:
        real(self, *batch)
        rates.append(self.learning_rate)

    monkeypatch.setattr(Training, "step", spy)
    train(make_job(context), config(lr=0.02, warmup_epochs=2.0, warmup_lr=0.002, min_lr=0.001), 10, context)
    warm, steps = 12, 60
    linear = [0.002 + (0.02 - 0.002) * step / warm for step in range(warm)]
    cosine = [0.001 + 0.5 * (0.02 - 0.001) * (1 + math.cos(math.pi * step / steps)) for step in range(warm, steps)]
    assert rates == pytest.approx(linear + cosine, rel=1e-6)


@pytest.mark.parametrize("decay", [None, 0.7])
def test_the_average_is_the_recursion(context: Context, decay: float | None) -> None:
    seen: list[Tensor] = []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        seen.append(next(model.parameters()).detach().clone())
        return cross_entropy(model, images, labels)

    trained = train(make_job(context, loss), config(ema_decay=decay, ema_warmup=False), 1, context)
    assert context.run.metrics()[0]["val_top1_ema"] == trained.top1_ema
    if decay is None:
        assert (trained.ema, trained.top1_ema, trained.chosen[0]) == (None, None, "raw")
        return
    name = "body.1.weight"
    average = seen[1]  # the average starts at the weights after the first step
    for weights in [*seen[2:], trained.raw[name]]:
        average = 0.7 * average + 0.3 * weights
    assert trained.ema is not None
    torch.testing.assert_close(trained.ema[name], average)
    assert not torch.equal(trained.ema[name], trained.raw[name])


@pytest.mark.parametrize(
    ("raw_top1", "ema_top1", "chosen"),
    [(50.0, 60.0, "ema"), (60.0, 50.0, "raw"), (50.0, 50.0, "ema"), (50.0, None, "raw")],
)
def test_chosen_is_the_better_one(raw_top1: float, ema_top1: float | None, chosen: str) -> None:
    states = {"raw": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}
    trained = Trained(states["raw"], states["ema"] if ema_top1 else None, raw_top1, ema_top1, {}, Progress())
    assert trained.chosen == (chosen, states[chosen], max(raw_top1, ema_top1 or 0))


def test_asking_for_a_gpu_where_there_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentLacksError, match="torch sees no GPU"):
        make_accelerator("cuda")
    assert make_accelerator("auto").device.type == "cpu"
    assert describe("auto").startswith("CPU, ")


def test_an_accumulation_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="accumulation 2 does not divide batch_size 9"):
        config(batch_size=9, accumulation=2)
