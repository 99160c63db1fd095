"""The training loop on a network of a few hundred weights: what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import (
    IMAGES,
    Tiny,
    assert_bitwise_equal,
    blobs,
    config,
    cross_entropy,
    make_job,
    metrics,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.stages.training.checkpoint import Progress, find_checkpoint
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.device import describe, make_accelerator
from vitcompress.stages.training.job import Trained
from vitcompress.stages.training.loop import train


def test_it_learns(context: Context) -> None:
    trained = train(make_job(context), config(), 10, context)
    lines = metrics(context)
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert lines[-1]["step"] == trained.progress.steps == 60
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert trained.top1_raw == lines[-1]["val_top1_raw"] > 80
    assert trained.losses == lines[-1]["losses"]
    assert lines[-1]["images_per_second"] > 0


def test_images_that_fill_no_batch_are_counted_and_told(context: Context) -> None:
    trained = train(make_job(context, batch=9), config(), 2, context)
    assert (trained.progress.images, trained.left_over) == (45, IMAGES - 45)
    assert "each epoch trained on 45 of 48 images; 3 did not" in context.console.file.getvalue()  # type: ignore[attr-defined]


def test_the_same_seed_trains_the_same_network(context: Context, tmp_path: Path) -> None:
    one, other = (train(make_job(context, folder=tmp_path / name), config(), 2, context) for name in "ab")
    assert_bitwise_equal(one, other)


def poisoned(at: int, how: str) -> Callable[..., dict[str, Tensor]]:
    calls = 0

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        terms = cross_entropy(model, images, labels)
        if calls == at and how == "gradient":
            weight = next(model.parameters())
            return {"labels": terms["labels"] + (weight - weight.detach()).abs().sqrt().sum()}
        factor = {"nan": math.nan, "inf": math.inf}.get(how, 1.0) if calls == at else 1.0
        return {**terms, "features": terms["labels"] * factor}

    return loss


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("nan", "loss term 'features' is nan"),
        ("inf", "loss term 'features' is inf"),
        ("gradient", "gradient norm is (nan|inf)"),
    ],
)
def test_a_value_that_is_not_finite_ends_training_before_the_step(context: Context, how: str, what: str) -> None:
    job = make_job(context, poisoned(9, how))
    before: dict[str, Tensor] = {}
    inner = job.loss

    def remembering(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        before.update({name: value.clone() for name, value in model.state_dict().items()})
        return inner(model, images, labels)

    job = make_job(context, remembering, model=job.model)
    with pytest.raises(
        ResultError, match=rf"{what} at epoch 2, step 9 of tiny; the step was not taken. Lower the lear"
    ):
        train(job, config(checkpoint_seconds=0.0), 3, context)
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())
    found = find_checkpoint(job.folder, "mine")
    assert found is not None
    assert found[1].steps == 8


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


def learning_rates(context: Context, settings: TrainingConfig, epochs: int) -> list[float]:
    rates: list[float] = []
    import vitcompress.stages.training.loop as loop

    def spy(self: Any, images: Tensor, labels: Tensor, real: Any = loop.Training.step) -> None:
        real(self, images, labels)
        rates.append(self.optimizer.param_groups[0]["lr"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "step", spy)
        train(make_job(context), settings, epochs, context)
    return rates


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine(context: Context) -> None:
    settings = config(lr=0.02, warmup_epochs=2.0, warmup_lr=0.002, min_lr=0.001)
    rates = learning_rates(context, settings, 10)
    warm, steps = 12, 60
    assert len(rates) == steps
    assert rates[:warm] == pytest.approx([0.002 + (0.02 - 0.002) * step / warm for step in range(warm)])
    cosine = [0.001 + 0.5 * (0.02 - 0.001) * (1 + math.cos(math.pi * step / steps)) for step in range(warm, steps)]
    assert rates[warm:] == pytest.approx(cosine, rel=1e-6)


def test_the_average_is_the_recursion_and_the_better_of_both_is_chosen(context: Context) -> None:
    seen: list[Tensor] = []

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        seen.append(next(model.parameters()).detach().clone())
        return cross_entropy(model, images, labels)

    job = make_job(context, loss)
    trained = train(job, config(ema_decay=0.7, ema_warmup=False), 1, context)
    name = "body.1.weight"
    average = seen[1]  # the average starts at the weights after the first step
    for weights in [*seen[2:], trained.raw[name]]:
        average = 0.7 * average + 0.3 * weights
    assert trained.ema is not None
    torch.testing.assert_close(trained.ema[name], average)
    assert not torch.equal(trained.ema[name], trained.raw[name])


@pytest.mark.parametrize(
    ("ema", "raw_top1", "ema_top1", "chosen"),
    [(True, 50.0, 60.0, "ema"), (True, 60.0, 50.0, "raw"), (True, 50.0, 50.0, "ema"), (False, 50.0, None, "raw")],
)
def test_chosen_is_the_better_one(ema: bool, raw_top1: float, ema_top1: float | None, chosen: str) -> None:
    states = {"raw": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}
    trained = Trained(states["raw"], states["ema"] if ema else None, raw_top1, ema_top1, {}, Progress())
    name, state, accuracy = trained.chosen
    assert (name, accuracy) == (chosen, max(raw_top1, ema_top1 or 0))
    assert state is states[chosen]


def test_evaluation_comes_every_few_epochs_and_at_the_end(context: Context) -> None:
    train(make_job(context), config(eval_every=3), 7, context)
    lines = metrics(context)
    assert [line["epoch"] for line in lines] == list(range(1, 8))
    assert [line["epoch"] for line in lines if line["val_top1_raw"] is not None] == [3, 6, 7]
    assert all(line["loss"] > 0 and line["images_per_second"] > 0 for line in lines)


def test_asking_for_a_gpu_where_there_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentLacksError, match="torch sees no GPU"):
        make_accelerator("cuda")
    assert make_accelerator("auto").device.type == "cpu"
    assert describe("auto").startswith("CPU, ")


@pytest.mark.parametrize(
    "changes", [{"batch_size": 9, "accumulation": 2}, {"lr": 0.0}, {"ema_decay": 1.0}, {"batch_size": 0}]
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"accumulation 2 does not divide batch_size 9|greater than|less than"):
        config(**changes)
