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
        """Begin the average at the weights of ``model``.

        Args:
            model: everything that trains, not wrapped.
            decay: of the average, a step.
            warmup: whether the decay is smaller in the first steps.
        """
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

    averages: list[Tensor]
    weights: list[Tensor]
    counters: list[tuple[Tensor, Tensor]]
    """Average and own of what is counted, which is copied."""

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        """Move the averages towards the weights of ``model``, always the same one.

        Args:
            model: what was given at the start, trained on.
            step: optimizer steps taken.
        """
        if not hasattr(self, "averages"):
            self._find(model)
        torch._foreach_lerp_(self.averages, self.weights, weight=1.0 - self.get_decay(step))
        for average, own in self.counters:
            average.copy_(own)

    def _find(self, model: nn.Module) -> None:
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self.averages, self.weights = [average for average, _ in floating], [own for _, own in floating]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]
