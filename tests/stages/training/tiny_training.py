"""A training of a network of a few hundred weights, for the tests of the loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from vitcompress.core.context import Context
from vitcompress.stages.images.loaders import ViewKey, train_loader
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.job import Job, Trained

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
    values: dict[str, Any] = {
        "batch_size": 8,
        "lr": 1e-2,
        "min_lr": 1e-5,
        "warmup_epochs": 0.0,
        "ema_decay": 0.9,
        "layer_decay": None,
    }
    return TrainingConfig(**{**values, **changes})


def assert_bitwise_equal(one: Trained, other: Trained) -> None:
    for first, second in ((one.raw, other.raw), (one.ema, other.ema)):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert (one.top1_raw, one.top1_ema, one.losses) == (other.top1_raw, other.top1_ema, other.losses)
    assert (one.progress.epoch, one.progress.steps) == (other.progress.epoch, other.progress.steps)
