"""Weights on disk: safetensors of our own, and checkpoints from outside, loaded without running their code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.records import FileRef
from vitcompress.stages.models.adapt import CannotAdaptError, adapt
from vitcompress.stages.models.checkpoint import read_checkpoint, some, without_wrapper
from vitcompress.stages.models.families.given import GivenNetwork
from vitcompress.stages.models.families.registry import family_of


def save_weights(state: dict[str, Tensor], path: Path, root: Path) -> FileRef:
    """Write a state dict as safetensors, whole or not at all; shared storage is written once per name."""
    own = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in state.items()}
    write_atomic(path, save(own))
    return reference(path, root)


def read_own(ref: FileRef, root: Path) -> dict[str, Tensor]:
    """Read weights that this run wrote, by name."""
    state: dict[str, Tensor] = load_file(root / ref.path)
    return state


def load_own(model: nn.Module, ref: FileRef, root: Path) -> nn.Module:
    """Load weights that this run wrote into ``model``, and return it."""
    model.load_state_dict(read_own(ref, root), strict=True)
    return model


def load_checkpoint(
    model: nn.Module,
    path: Path,
    subject: str = "teacher",
    options: str = "--teacher and teacher.args",
    tell: Callable[[str], None] | None = None,
    key: str | None = None,
) -> bool:
    """Load a checkpoint from outside, and return whether its classifier fitted too; if not, the initial one stays.

    Every other tensor must fit. A checkpoint that does not fit as it is goes through timm's own filter of the
    architecture, which resamples positions and patches of another size (``stages.models.adapt``); one that fits is
    loaded bit by bit.

    ``model`` is a plain timm network. ``subject`` (whose weights they are to be) and ``options`` (what the user gave
    the architecture with) are for the messages; ``tell`` receives a phrase on what of the file was loaded, resampled
    and left out. ``key`` is as for ``read_checkpoint``.

    A UsageError names missing or unexpected tensors, shapes that differ, and values that are not finite.
    """
    model = model.module if isinstance(model, GivenNetwork) else model
    own = model.state_dict()
    checkpoint = without_wrapper(read_checkpoint(path, subject, key), own, path, subject)
    state, reason = checkpoint.state, ""
    resampled: tuple[str, ...] = ()
    head = tuple(f"{prefix}." for prefix in family_of(model).classifier(model))
    body = {name: value for name, value in own.items() if not name.startswith(head)}
    if _problems(body, state, head):
        try:
            state, resampled = adapt(state, model)
        except CannotAdaptError as error:
            reason = f"; timm cannot convert them: {error}"
    if _problems(body, state, head):
        raise UsageError(
            f"{subject} weights '{path}' do not fit the model ({_problems(body, state, head)}{reason}); "
            f"check {options} against the checkpoint."
        )
    if not all_finite(state):
        wrong = [name for name, tensor in state.items() if not all_finite({name: tensor})]
        raise UsageError(f"{subject} weights '{path}' hold values that are not finite ({some(wrong)}).")
    heads = own.keys() - body.keys()
    fits = all(name in state and state[name].shape == own[name].shape for name in heads)
    kept = {name: state[name] for name in (own if fits else body)}
    model.load_state_dict(kept, strict=False)
    if tell is not None:
        classes = max((len(own[name]) for name in heads), default=0)
        left_out = () if fits else (f"without its classifier, which is not one of {classes} classes",)
        tell("; ".join((checkpoint.words, *resampled, *left_out)))
    return fits


def classes_in(model: nn.Module, path: Path, key: str | None = None) -> int | None:
    """Return how many classes the classifier in a checkpoint of ``model``, of any number, has; None without one."""
    own, head = model.state_dict(), tuple(f"{prefix}." for prefix in family_of(model).classifier(model))
    state = without_wrapper(read_checkpoint(path, "teacher", key), own, path, "teacher").state
    with suppress(CannotAdaptError):  # what is wrong with it is said when it is loaded
        state, _ = adapt(state, model)
    rows = {name for name in own if name.startswith(head) and len(own[name]) == getattr(model, "num_classes", 0)}
    counts = {len(state[name]) for name in rows & state.keys()}
    return counts.pop() if len(counts) == 1 else None


def _problems(body: dict[str, Tensor], state: dict[str, Tensor], classifier: tuple[str, ...]) -> str:
    """Return what of ``state`` a network of the tensors ``body``, and a classifier, cannot take; empty if it can."""
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in body.items()
        if name in state and value.shape != state[name].shape
    ]
    titles = {
        "missing": [name for name in body if name not in state],
        "unexpected": [name for name in state if name not in body and not name.startswith(classifier)],
        "wrong shape": wrong,
    }
    return "; ".join(f"{title}: {some(names)}" for title, names in titles.items() if names)


def all_finite(state: dict[str, Tensor]) -> bool:
    """Return whether no tensor holds a NaN or infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values() if tensor.is_floating_point())
