"""What follows a backward pass beside the optimizer: the gradient's norm, and the averaged weights.

Both go once over all weights, which at small batches is a tenth of a step: nothing is read or written twice here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> float:
    """The gradient's norm over all parameters; above ``limit`` the gradients are scaled down to it.

    Bit for bit torch's ``clip_grad_norm_``, which also reads and writes every gradient to multiply it by 1.

    Args:
        parameters: those that train; without a gradient they do not count.
        limit: None to leave gradients as they are.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in held if parameter.grad is not None])
    value = float(norm)
    if limit is not None and not limit / (value + 1e-6) >= 1:  # torch's own factor, which it cuts off at 1
        clip_grads_with_norm_(held, limit, norm)
    return value


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
