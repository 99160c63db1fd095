"""What a training is given, what its callbacks see of it, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.stages.images.loaders import Mix
from vitcompress.stages.judging.accuracy import top1
from vitcompress.stages.training.checkpoint import Progress
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.terms import Compared

LossFunction = Callable[..., dict[str, Tensor]]
"""(model as prepared for this device, images [B,3,S,S], labels int64 [B] or mixed float [B,K], whatever else a batch
holds) -> weighted loss terms, scalars, to be summed."""


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str
    """Shown to the user and written to the metrics."""
    model: nn.Module
    """Everything that trains, as one module."""
    network: Callable[[nn.Module], nn.Module]
    """From that module (or its average) to the network that classifies."""
    loss: LossFunction
    train: DataLoader[Any]
    val: DataLoader[Any]
    folder: Path
    """Where checkpoints go."""
    fingerprint: str
    """Checkpoints of another fingerprint are not resumed."""
    mix: Mix | None = None
    """Normalising, mixup or CutMix of each training batch, on the device."""
    score: Callable[[NDArray[np.float32], NDArray[Any]], float] = top1
    """Of held-out outputs ``[N, K]`` and what they should have been, percent; epochs are compared by it."""
    compared: Compared | None = None
    """Where the terms' gradients are measured, and which terms are balanced; None to leave them as they are."""


@dataclass(frozen=True)
class Trained:
    """The weights of a network after an epoch, on its device, and how they were reached."""

    raw: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    top1_raw: float
    top1_ema: float | None
    losses: dict[str, float]
    progress: Progress
    left_over: int = 0
    """Images of the last epoch that filled no batch, and so were not trained on."""

    @property
    def chosen(self) -> tuple[str, dict[str, Tensor], float]:
        """Name, state and top-1 of the better of raw and averaged weights on the held-out images."""
        if self.ema is not None and self.top1_ema is not None and self.top1_ema >= self.top1_raw:
            return "ema", self.ema, self.top1_ema
        return "raw", self.raw, self.top1_raw


class TrainingState:
    """The live objects of one training."""

    job: Job
    config: TrainingConfig
    context: Context
    epochs: int
    """Passes over the training images, at most."""
    steps_per_epoch: int
    accelerator: Any
    """An ``Engine`` of ``stages.training.device``; Accelerate's classes are untyped."""
    model: nn.Module
    """As prepared for this device."""
    optimizer: Any
    progress: Progress
    answers: tuple[NDArray[np.float32], NDArray[Any]]
    """At the newest evaluation: held-out outputs of the better of raw and averaged weights, and what they should be."""

    @property
    def learning_rate(self) -> float:
        """The largest learning rate of the parameter groups."""
        rates: list[float] = [group["lr"] for group in self.optimizer.param_groups]
        return max(rates)

    def raw_state(self) -> dict[str, Tensor]:
        """Return the network's weights as they are now, not averaged and not copied."""
        return self.job.network(self.accelerator.unwrap_model(self.model)).state_dict()
