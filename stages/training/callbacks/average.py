"""The moving average of the weights (EMA), tracked beside the raw ones."""

from __future__ import annotations

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.job import TrainingState


class Average(Callback):
    """Keeps the average up to date and in the checkpoints."""

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool) -> None:
        """Begin at the weights of ``model``, not wrapped; with ``warmup`` the decay is smaller in the first steps."""
        self.saved = AveragedWeights(model, decay=decay, use_warmup=warmup)

    @property
    def module(self) -> nn.Module:
        """A module like ``model`` with the averaged weights."""
        module: nn.Module = self.saved.module
        return module

    def after_step(self, training: TrainingState) -> None:
        """Move the average towards the weights."""
        self.saved.update(training.accelerator.unwrap_model(training.model), step=training.progress.steps)


class AveragedWeights(ModelEmaV3):  # type: ignore[misc]  # timm's classes are untyped
    """timm's moving average, bit for bit, of one network whose tensors stay where they are.

    timm asks both networks for their state at every step, which takes as long as averaging a small one. Here the
    tensors are found once, at the first update.
    """

    pairs: list[tuple[Tensor, Tensor]] | None = None
    """Average and own."""

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        """Move the averages towards the weights of ``model``, always the same one, after so many optimizer steps."""
        if self.pairs is None:
            self.pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [pair for pair in self.pairs if pair[0].is_floating_point()]
        averages, weights = [average for average, _ in floating], [own for _, own in floating]
        torch._foreach_lerp_(averages, weights, weight=1.0 - self.get_decay(step))
        for average, own in self.pairs:
            if not average.is_floating_point():
                average.copy_(own)
