"""The optimizer of a training, timm's AdamW, and its step, which clips gradients and leaves out what is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitcompress.core.errors import UsageError
from vitcompress.stages.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig, lr: float) -> torch.optim.Optimizer:
    """Return AdamW over all that trains; norms, biases and what ``model.no_weight_decay`` names do not decay.

    With ``config.layer_decay`` d, a parameter of layer l of L has the learning rate ``lr x d^(L - l)`` (timm's
    ``param_groups_layer_decay``, after BEiT); layers are those of ``model.group_matcher``. ``lr`` is the peak rate.
    A UsageError is raised for a decay by layers of a network that does not tell them (timm's CSATv2).
    """
    decay = config.layer_decay
    if decay is not None and float(decay) != 1:
        try:
            model.group_matcher(coarse=False)  # type: ignore[operator]
        except AttributeError as error:
            raise UsageError(
                f"layer_decay is {decay}, but timm does not say which parameters are of which layer of this network "
                f"({error}); set layer_decay to 1, for the teacher and for distill."
            ) from error
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt="adamw",
        lr=lr,
        weight_decay=config.weight_decay,
        layer_decay=None if decay is None or float(decay) == 1 else float(decay),
        fused=True,
    )
    return optimizer


def take_step(optimizer: Any, parameters: Iterable[nn.Parameter], limit: float | None, *, asynchronous: bool) -> Tensor:
    """Take a step of ``make_optimizer``'s optimizer, unless the gradient's norm over all parameters is not finite.

    Above ``limit`` the gradients are first scaled down to it, bit for bit as torch's ``clip_grad_norm_`` does; None
    scales nothing. A step that is not taken leaves weights, moments and the optimizer's count of steps as they were.
    ``optimizer`` is as Accelerate prepared it. The norm before scaling is returned, a scalar.

    Where the device is ``asynchronous`` the host reads nothing: the gradients are multiplied by torch's factor, which
    is mostly 1, and AdamW's kernel is told by ``found_inf`` to leave all as it is (as ``torch.amp.GradScaler`` does).
    Elsewhere the norm is read, and a factor of 1 is not applied: at small batches that is a tenth of a step.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in held if parameter.grad is not None])
    if asynchronous:
        if limit is not None:
            clip_grads_with_norm_(held, limit, norm)
        optimizer.optimizer.found_inf = (~torch.isfinite(norm)).float()
        optimizer.step()
        return norm
    value = float(norm)
    if limit is not None and not limit / (value + 1e-6) >= 1:  # torch's own factor, which it cuts off at 1
        clip_grads_with_norm_(held, limit, norm)
    if math.isfinite(value):
        optimizer.step()
    return norm
