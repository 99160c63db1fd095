"""The optimizer of a training, timm's AdamW, and the clipping of its gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitcompress.stages.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig, lr: float) -> torch.optim.Optimizer:
    """Return AdamW over all that trains; norms, biases and what ``model.no_weight_decay`` names do not decay.

    With ``config.layer_decay`` d, a parameter of layer l of L has the learning rate ``lr x d^(L - l)`` (timm's
    ``param_groups_layer_decay``, after BEiT); layers are those of ``model.group_matcher``. ``lr`` is the peak rate.
    """
    decay = config.layer_decay
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt="adamw",
        lr=lr,
        weight_decay=config.weight_decay,
        layer_decay=None if decay is None or float(decay) == 1 else float(decay),
        fused=True,
    )
    return optimizer


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> float:
    """Return the gradient's norm over all parameters; above ``limit``, scale the gradients down to it.

    Bit for bit torch's ``clip_grad_norm_``, which also reads and writes every gradient to multiply it by 1: at small
    batches that is a tenth of a step. Without a ``limit`` gradients stay as they are.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in held if parameter.grad is not None])
    value = float(norm)
    if limit is not None and not limit / (value + 1e-6) >= 1:  # torch's own factor, which it cuts off at 1
        clip_grads_with_norm_(held, limit, norm)
    return value
