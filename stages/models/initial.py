"""First weights of a student from a checkpoint: whatever fits is taken, and everything else is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import split_tag
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.adapt import CannotAdaptError, adapt
from vitcompress.stages.models.build import pretrained_model
from vitcompress.stages.models.checkpoint import read_checkpoint, without_wrapper
from vitcompress.stages.models.families.given import GivenNetwork
from vitcompress.stages.models.geometry import meta_model
from vitcompress.stages.models.students import LiftStudent, network_inside
from vitcompress.stages.models.weights import all_finite

_INSIDE_LIFT = "base.vit."
_PREPROCESSING = ("mean", "std", "interpolation", "crop_pct")


@dataclass(frozen=True)
class Fit:
    """What of a checkpoint fits into a student."""

    values: dict[str, Tensor]
    """By the student's own names."""
    not_loaded: tuple[str, ...]
    """Every other tensor of either side: its name and, after a colon, the reason."""
    told: tuple[str, ...] = ()
    """Which part of the file it is, and what timm resampled, in words."""


def fit_file(model: nn.Module, path: Path, arch: str, args: dict[str, Any], key: str | None = None) -> Fit:
    """Return what of a checkpoint file fits into ``model``, a student of any strategy (also on the meta device).

    ``key`` is the entry of the file, or a prefix of its names; None chooses (``stages.models.checkpoint``).
    A UsageError is raised if the file cannot be read, or nothing in it fits.
    """
    checkpoint = read_checkpoint(path, "student", key)
    if not isinstance(model, LiftStudent) and any(name.startswith(_INSIDE_LIFT) for name in checkpoint.state):
        checkpoint = checkpoint.without(_INSIDE_LIFT)
    if not any(name.startswith(_INSIDE_LIFT) for name in checkpoint.state):
        checkpoint = without_wrapper(checkpoint, meta_model(arch, args).state_dict(), path, "student")
    found = fit(model, checkpoint.state, arch, args, f"student weights '{path}'")
    where = (checkpoint.words,) if checkpoint.key or checkpoint.prefix else ()  # else it is all of the file
    return replace(found, told=(*where, *found.told))


def fit_pretrained(model: nn.Module, name: str, args: dict[str, Any]) -> tuple[Fit, dict[str, Any]]:
    """Return what of timm's pretrained network ``name`` fits into ``model``, and that network's preprocessing.

    A UsageError is raised if there are no such weights, they cannot be had from here, or nothing fits.
    """
    arch = split_tag(name)[0]
    config = timm.get_pretrained_cfg(name)
    spec = ModelSpec(arch=arch, args={}, num_classes=1000 if config is None else config.num_classes)
    try:
        pretrained: Any = pretrained_model(name, spec)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"pretrained weights of student '{name}' can be had neither from the local cache nor from timm's hub "
            f"({type(error).__name__}). Three ways on: give a checkpoint with --set student.init=file --set "
            "student.weights=FILE; run once where the hub can be reached and keep its cache (HF_HOME); or start from "
            "random weights with --set student.init=random."
        ) from error
    found = fit(model, pretrained.state_dict(), arch, args, f"student weights '{name}' of timm")
    return found, {key: pretrained.pretrained_cfg[key] for key in _PREPROCESSING if key in pretrained.pretrained_cfg}


def fit(model: nn.Module, state: dict[str, Tensor], arch: str, args: dict[str, Any], origin: str) -> Fit:
    """Return the tensors of ``state`` whose name and shape are those of ``model``.

    A lift takes a plain network's tensors into its base. Grids of another size are resampled where timm does that for
    the architecture (position embeddings, relative position tables, patch embeddings).
    A UsageError, which begins with ``origin``, is raised if nothing fits, or a tensor that does is not finite.
    """
    own = model.state_dict()
    resampled: tuple[str, ...] = ()
    check = "check --student and student.args against them."
    if not any(name.startswith(_INSIDE_LIFT) for name in state):  # a lift's own names already
        try:
            state, resampled = adapt(state, meta_model(arch, args))
        except CannotAdaptError as error:
            raise UsageError(f"{origin} cannot be brought to {arch} ({error}); {check}") from error
        if isinstance(network_inside(model), GivenNetwork):
            state = {f"module.{name}": value for name, value in state.items()}
        if isinstance(model, LiftStudent):
            state = {_INSIDE_LIFT + name: value for name, value in state.items()}
    values = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    if not values:
        raise UsageError(
            f"{origin} have no tensor that fits the student ({len(state)} tensors against {len(own)}; the first is "
            f"{next(iter(state), 'none')}); {check}"
        )
    if not all_finite(values):
        raise UsageError(f"{origin} hold values that are not finite; give other weights.")
    reasons = [f"{name}: missing in the checkpoint" for name in own if name not in state]
    reasons += [
        f"{name}: other shape, {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and name not in values
    ]
    reasons += [f"{name}: not in the student" for name in state if name not in own]
    return Fit(values, tuple(reasons), resampled)
