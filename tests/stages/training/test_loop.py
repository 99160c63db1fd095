"""The training loop on a network of a few hundred weights: what it computes, how it stops and how it goes on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from small_run import LIGHT_AUGMENT, SPEC, seeded_model, student_spec
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from core.context import Context
from core.errors import EnvironmentLacksError, ResultError, RunInterrupted, UsageError
from stages.images.config import DataConfig
from stages.images.loaders import ViewKey, eval_loader, train_loader, train_views
from stages.images.sources import open_images
from stages.training.checkpoint import Progress, find_checkpoint
from stages.training.config import TrainingConfig
from stages.training.device import describe, make_accelerator
from stages.training.evaluate import top1
from stages.training.interrupt import stop_on_signal
from stages.training.loop import Job, Trained, train

CLASSES, IMAGES = 3, 48


class Tiny(nn.Module):
    """A classifier of 4 x 4 images; dropout makes it depend on the generators, as stochastic depth would."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def blobs(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(99))
    return TensorDataset(centres[labels] + 0.8 * torch.randn(count, 3, 4, 4, generator=generator), labels)


class Keyed(Dataset[tuple[Tensor, Tensor]]):
    """Blobs by view key, as training images are."""

    def __init__(self, blobs: TensorDataset) -> None:
        self.blobs = blobs

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, key: ViewKey) -> tuple[Tensor, Tensor]:
        return self.blobs[key.index]


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {"labels": F.cross_entropy(model(images), labels)}


class Interrupting:
    """The loss, sending this process a real SIGINT at one of its calls."""

    def __init__(self, at: int, loss: Callable[..., dict[str, Tensor]] = cross_entropy) -> None:
        self.at, self.loss, self.calls = at, loss, 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return self.loss(model, images, labels)


def make_job(context: Context, loss: Any = cross_entropy, batch: int = 8, **changes: Any) -> Job:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "name": "tiny",
        "model": Tiny(),
        "network": lambda model: model,
        "loss": loss,
        "train": train_loader(Keyed(blobs(IMAGES, 0)), batch_size=batch, seed=0, workers=0),
        "val": DataLoader(blobs(30, 1), batch_size=16),
        "folder": context.run.root / "checkpoints" / "tiny",
        "fingerprint": "mine",
    }
    return Job(**{**values, **changes})


def config(**changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {"batch_size": 8, "lr": 1e-2, "min_lr": 1e-5, "warmup_epochs": 0.0, "ema_decay": 0.9}
    return TrainingConfig(**{**values, **changes})


def metrics(context: Context) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.run.root / "metrics.jsonl").read_text().splitlines()]


def assert_bitwise_equal(one: Trained, other: Trained) -> None:
    for first, second in ((one.raw, other.raw), (one.ema, other.ema)):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert (one.top1_raw, one.top1_ema, one.losses) == (other.top1_raw, other.top1_ema, other.losses)
    assert (one.progress.epoch, one.progress.steps) == (other.progress.epoch, other.progress.steps)


def test_it_learns(context: Context) -> None:
    trained = train(make_job(context), config(), 10, context)
    lines = metrics(context)
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert lines[-1]["step"] == trained.progress.steps == 60
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert trained.top1_raw == lines[-1]["val_top1_raw"] > 80
    assert trained.losses == lines[-1]["losses"]
    assert lines[-1]["images_per_second"] > 0


def test_the_same_seed_trains_the_same_network(context: Context, tmp_path: Path) -> None:
    one, other = (train(make_job(context, folder=tmp_path / name), config(), 2, context) for name in "ab")
    assert_bitwise_equal(one, other)


@pytest.mark.parametrize("at", [3, 9, 12])
def test_interrupted_and_resumed_equals_uninterrupted_bit_by_bit(context: Context, tmp_path: Path, at: int) -> None:
    """Stopped in the first epoch, in the middle of the second, and at the last batch of the second (of three)."""
    whole = train(make_job(context, folder=tmp_path / "whole"), config(), 3, context)
    with pytest.raises(RunInterrupted, match=rf"saved at step {at}; the same command goes on from there"):
        train(make_job(context, Interrupting(at)), config(), 3, context)
    resumed_loss = Interrupting(-1)
    resumed = train(make_job(context, resumed_loss), config(), 3, context)
    assert resumed_loss.calls == 18 - at  # what was done is not done again
    assert_bitwise_equal(resumed, whole)


def test_interrupted_twice(context: Context, tmp_path: Path) -> None:
    whole = train(make_job(context, folder=tmp_path / "whole"), config(), 2, context)
    for at in (4, 5):
        with pytest.raises(RunInterrupted):
            train(make_job(context, Interrupting(at)), config(), 2, context)
    assert_bitwise_equal(train(make_job(context), config(), 2, context), whole)


def test_interrupted_between_accumulated_batches(context: Context, tmp_path: Path) -> None:
    """The gradients of half a step are in no checkpoint: the step must be finished before stopping."""
    settings = config(accumulation=2)

    def job(loss: Any, **changes: Any) -> Job:
        return make_job(context, loss, batch=4, **changes)

    whole = train(job(cross_entropy, folder=tmp_path / "whole"), settings, 2, context)
    with pytest.raises(RunInterrupted):
        train(job(Interrupting(3)), settings, 2, context)
    resumed = train(job(cross_entropy), settings, 2, context)
    assert_bitwise_equal(resumed, whole)


def vit_job(context: Context, digits: Path, workers: int, loss: Any, folder: Path) -> Job:
    images = open_images(DataConfig(source=str(digits)))
    spec = student_spec("lift-kept")
    model = seeded_model(spec.model_copy(update={"args": {**spec.args, "proj_drop_rate": 0.1, "drop_path_rate": 0.1}}))
    train_batches = train_loader(
        train_views(images.train, LIGHT_AUGMENT, SPEC, 0), batch_size=16, seed=0, workers=workers
    )
    val = eval_loader(images.val, SPEC, batch_size=16, workers=0)
    return Job("vit", model, lambda trained: trained, loss, train_batches, val, folder, "mine")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_vision_transformer_with_augmentation_resumes_bit_by_bit(
    context: Context, digits_folder: Path, tmp_path: Path, workers: int
) -> None:
    def job(loss: Any, folder: str, workers: int = workers) -> Job:
        return vit_job(context, digits_folder, workers, loss, tmp_path / folder)

    settings = config(lr=1e-3)
    whole = train(job(cross_entropy, "whole", 0), settings, 2, context)
    with pytest.raises(RunInterrupted):
        train(job(Interrupting(7), "resumed"), settings, 2, context)
    assert_bitwise_equal(train(job(cross_entropy, "resumed"), settings, 2, context), whole)


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
    import stages.training.loop as loop

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


def test_without_an_average_there_is_none(context: Context) -> None:
    trained = train(make_job(context), config(ema_decay=None), 1, context)
    assert (trained.ema, trained.top1_ema, trained.chosen[0]) == (None, None, "raw")
    assert metrics(context)[0]["val_top1_ema"] is None


def test_evaluation_comes_every_few_epochs_and_at_the_end(context: Context) -> None:
    train(make_job(context), config(eval_every=3), 7, context)
    lines = metrics(context)
    assert [line["epoch"] for line in lines] == list(range(1, 8))
    assert [line["epoch"] for line in lines if line["val_top1_raw"] is not None] == [3, 6, 7]
    assert all(line["loss"] > 0 and line["images_per_second"] > 0 for line in lines)


def test_checkpoints_replace_each_other_and_incomplete_ones_are_ignored(context: Context) -> None:
    job = make_job(context, Interrupting(5))
    with pytest.raises(RunInterrupted):
        train(job, config(checkpoint_seconds=0.0), 1, context)
    assert [entry.name for entry in (job.folder / "mine").iterdir()] == ["step-00000005-000005"]
    whole = job.folder / "mine" / "step-00000005-000005"
    shutil.copytree(whole, job.folder / "mine" / "step-00000006-000006")
    (job.folder / "mine" / "step-00000006-000006" / "progress.json").unlink()
    shutil.copytree(whole, job.folder / "mine" / "step-00000007-000007")
    (job.folder / "mine" / "step-00000007-000007" / "progress.json").write_text('{"fingerprint": "mi')
    shutil.copytree(whole, job.folder / "mine" / ".step-00000008-000008")
    found = find_checkpoint(job.folder, "mine")
    assert found is not None
    assert found[0] == whole
    assert (found[1].epoch, found[1].batches, found[1].steps) == (0, 5, 5)
    assert found[1].seconds > 0
    assert find_checkpoint(job.folder, "another") is None
    assert find_checkpoint(job.folder / "gone", "mine") is None


def test_the_same_position_is_not_written_twice(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing it again would take the only checkpoint away for a moment."""
    import stages.training.loop as loop

    written: list[tuple[int, int]] = []
    real = loop.save_checkpoint

    def spied(accelerator: Any, folder: Path, progress: Progress, fingerprint: str) -> None:
        written.append((progress.steps, progress.batches))
        real(accelerator, folder, progress, fingerprint)

    monkeypatch.setattr(loop, "save_checkpoint", spied)
    train(make_job(context), config(checkpoint_seconds=0.0), 1, context)
    assert len(written) == len(set(written)) == 7  # six steps, and the end of the pass


@pytest.mark.parametrize("refusal", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(
    context: Context, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    import stages.training.checkpoint as checkpoint

    job = make_job(context)
    real, flushed = checkpoint._flush, []

    def full(folder: Path) -> None:
        flushed.append(folder)
        if len(flushed) == 3:
            raise refusal
        real(folder)

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(UsageError, match=r"checkpoint cannot be written to .*make room on its disk"):
        train(job, config(checkpoint_seconds=0.0), 1, context)
    found = find_checkpoint(job.folder, "mine")
    assert found is not None
    assert found[1].steps == 2


def test_a_checkpoint_of_another_fingerprint_is_not_resumed(context: Context, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(5)), config(), 1, context)
    counted = Interrupting(-1)
    restarted = train(make_job(context, counted, fingerprint="other"), config(), 1, context)
    assert counted.calls == 6
    assert_bitwise_equal(restarted, train(make_job(context, folder=tmp_path / "fresh"), config(), 1, context))
    assert find_checkpoint(make_job(context).folder, "mine") is not None  # going back finds it


def test_a_second_interrupt_stops_at_once() -> None:
    requested = []

    def interrupted_twice() -> None:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            requested.append(stop.requested)
            os.kill(os.getpid(), signal.SIGINT)
            requested.append("the second interrupt was swallowed")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert requested == [True]


def test_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_top1_counts_a_nan_as_wrong() -> None:
    import numpy as np

    logits = np.array([[0, 1], [1, 0], [np.nan, 1], [0, 1]], dtype=np.float32)
    assert top1(logits, np.array([1, 1, 1, 1])) == 50.0


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
