"""The optimizer of a training: timm's AdamW, with what it leaves out of weight decay and its decay by layer."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from vitcompress.stages.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig, lr: float) -> torch.optim.Optimizer:
    """AdamW over all that trains; norms, biases and what ``model.no_weight_decay`` names do not decay.

    With ``config.layer_decay`` d, a parameter of layer l of L has the learning rate ``lr x d^(L - l)`` (timm's
    ``param_groups_layer_decay``, after BEiT); layers are those of ``model.group_matcher``.

    Args:
        model: everything that trains, as one module.
        config: resolved.
        lr: peak learning rate.
    """
    if isinstance(config.layer_decay, str):
        raise ValueError("layer_decay was not resolved")  # a mistake of ours: pipeline.defaults decides it
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt="adamw",
        lr=lr,
        weight_decay=config.weight_decay,
        layer_decay=None if config.layer_decay == 1 else config.layer_decay,
        fused=True,
    )
    return optimizer
