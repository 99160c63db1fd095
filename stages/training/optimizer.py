"""The optimizer of a training, one of timm's, and its step, which clips gradients and leaves out what is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitcompress.core.errors import UsageError, nearest
from vitcompress.stages.training.config import TrainingConfig

_REFUSALS = (TypeError, ValueError, LookupError, AssertionError, ImportError, RuntimeError)
"""What an optimizer raises for arguments, or a machine, that are not for it."""


def make_optimizer(model: nn.Module, config: TrainingConfig, lr: float) -> torch.optim.Optimizer:
    """Return timm's optimizer over all that trains; norms, biases and what ``no_weight_decay`` names do not decay.

    With ``config.layer_decay`` d, a parameter of layer l of L has the learning rate ``lr x d^(L - l)`` (timm's
    ``param_groups_layer_decay``, after BEiT); layers are those of ``model.group_matcher``. ``lr`` is the peak rate.
    A UsageError is raised for a decay by layers of a network that does not tell them (timm's CSATv2), and for an
    optimizer that is unknown, cannot be had here, or does not take its arguments.
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
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            model,
            opt=config.optimizer,
            lr=lr,
            weight_decay=config.weight_decay,
            layer_decay=None if decay is None or float(decay) == 1 else float(decay),
            **_arguments(config),
        )
    except _REFUSALS as error:
        raise _unusable(config, error) from error
    return optimizer


def try_optimizer(config: TrainingConfig) -> None:
    """Take a step of the settings' optimizer on two numbers; a UsageError is raised as by ``make_optimizer``."""
    with torch.random.fork_rng([]):
        layer = nn.Linear(2, 1)
    optimizer = make_optimizer(layer, config.model_copy(update={"layer_decay": None}), 1e-3)
    layer(torch.ones(1, 2)).sum().backward()
    try:
        optimizer.step()
    except _REFUSALS as error:
        raise _unusable(config, error) from error


def _arguments(config: TrainingConfig) -> dict[str, Any]:
    """Return the arguments beside rates and decay; a UsageError is raised for those that timm would drop silently."""
    name, known = config.optimizer.removeprefix("lookahead_"), list_optimizers()
    if name not in known:
        near = nearest(name, known) or "see timm.optim.list_optimizers()"
        raise UsageError(f"optimizer is '{config.optimizer}', which timm does not have; did you mean: {near}?")
    named = {key: getattr(config, key) for key in ("betas", "eps", "momentum")}
    found = config.optimizer_args | {key: value for key, value in named.items() if value is not None}
    for key in named.keys() & found.keys():
        if not getattr(get_optimizer_info(name), f"has_{key}"):
            raise UsageError(
                f"{key} is {found[key]}, which optimizer '{config.optimizer}' does not take; leave it out."
            )
    return {"fused": True} | found if config.optimizer == "adamw" else found


def _unusable(config: TrainingConfig, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return UsageError(
        f"optimizer '{config.optimizer}' cannot be used with these settings, or not here ({reason}); change "
        "optimizer_args, betas or momentum, or take another."
    )


def take_step(optimizer: Any, parameters: Iterable[nn.Parameter], limit: float | None, *, asynchronous: bool) -> Tensor:
    """Take a step of ``make_optimizer``'s optimizer, unless the gradient's norm over all parameters is not finite.

    Above ``limit`` the gradients are first scaled down to it, bit for bit as torch's ``clip_grad_norm_`` does; None
    scales nothing. A step that is not taken leaves weights, moments and the optimizer's count of steps as they were.
    ``optimizer`` is as Accelerate prepared it. The norm before scaling is returned, a scalar.

    Where the device is ``asynchronous`` and the optimizer fused (AdamW is), the host reads nothing: the gradients are
    multiplied by torch's factor, which is mostly 1, and the kernel is told by ``found_inf`` to leave all as it is (as
    ``torch.amp.GradScaler`` does). Elsewhere the norm is read, and a factor of 1 is not applied: at small batches that
    is a tenth of a step.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in held if parameter.grad is not None])
    if asynchronous and getattr(optimizer.optimizer, "_step_supports_amp_scaling", False):
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
