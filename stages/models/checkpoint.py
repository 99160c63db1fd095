"""Checkpoints from outside, in the forms that training scripts write them; nothing in a file is ever run."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import types
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from vitcompress.core.errors import UsageError
from vitcompress.stages.models.transformers_format import KNOWN, timm_state

_SHOWN = 6
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")
_RAW = ("state_dict", "model", "model_state_dict", "module", "net", "network", "params", "weights")
_POINTER = b"version https://git-lfs.github.com/spec/"
_LEAST_SHARE = 0.5
"""Of a network's tensors that a prefix has to explain."""


@dataclass(frozen=True)
class Checkpoint:
    """The state dict of a checkpoint, and how it was found in the file."""

    state: dict[str, Tensor]
    key: str = ""
    """Of the file's entries; empty where the file is the state dict."""
    prefix: str = ""
    """That was taken off the names, with its dot."""
    left_out: tuple[str, ...] = ()
    """Names of the file without that prefix."""

    @property
    def words(self) -> str:
        """Return key, kind of weights, prefix and what was left out, as a phrase."""
        entry = f"entry '{self.key}'" if self.key else "the whole file"
        kind = ", averaged weights (EMA)" if _is_averaged(self.key) else ", raw weights" if self.key else ""
        prefix = f", prefix '{self.prefix}' removed" if self.prefix else ""
        out = f", without {len(self.left_out)} tensors: {some(list(self.left_out))}" if self.left_out else ""
        return f"{len(self.state)} tensors of {entry}{kind}{prefix}{out}"

    def without(self, prefix: str) -> Checkpoint:
        """Return what begins with ``prefix``, which is taken off."""
        kept = {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}
        out = tuple(name for name in self.state if not name.startswith(prefix))
        return replace(self, state=kept, prefix=self.prefix + prefix, left_out=self.left_out + out)


def read_checkpoint(path: Path, subject: str = "teacher", key: str | None = None) -> Checkpoint:
    """Read the state dict in a file: safetensors, or a torch file, without running code.

    Averaged weights (EMA) are preferred to raw ones, as in timm. Besides tensors, a torch file may hold the harmless
    values of ``harmless_types``. ``subject`` is whose weights they are to be, for the messages. ``key`` is the entry to
    take, with dots for entries of entries; None chooses. If no entry has this name, it is a prefix of the names.

    A UsageError is raised if the file is missing, is no checkpoint, would need to run code to load, or does not say
    which of its state dicts is meant.
    """
    if not path.is_file():
        raise UsageError(f"{subject} weights '{path}' do not exist; give a .safetensors file or a torch state dict.")
    found = _state_dicts(_content(path, subject))
    if not found:
        raise UsageError(f"{subject} weights '{path}' hold no state dict of tensors; save the model's state_dict().")
    if key is None or key in found:
        chosen = key or _chosen(found, path, subject)
        return _cleaned(Checkpoint(_of_timm(found[chosen], path), chosen))
    start = f"{key.removesuffix('.')}."
    within = {name: state for name, state in found.items() if any(one.startswith(start) for one in state)}
    if not within:
        names = ", ".join(f"'{one}'" if one else "the whole file" for one in found)
        raise UsageError(
            f"{subject} weights '{path}' have neither an entry nor a prefix of names '{key}' "
            f"({_option(subject)}{key}); entries: {names}; first name: {next(iter(next(iter(found.values()))))}."
        )
    entry = next(iter(within)) if len(within) == 1 else _chosen(within, path, subject)
    return _cleaned(Checkpoint(found[entry], entry).without(start))


def _of_timm(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors by timm's names, where the ``config.json`` beside a file is that of a transformers model."""
    beside = path.with_name("config.json")
    config = json.loads(beside.read_bytes()) if beside.is_file() else {}
    known = "architecture" not in config and config.get("model_type") in KNOWN
    return timm_state(state, config) if known else state


def without_wrapper(checkpoint: Checkpoint, names: Iterable[str], path: Path, subject: str) -> Checkpoint:
    """Take a wrapper class's prefix off, if most of the network's ``names`` are behind it; a UsageError if several."""
    own = set(names)
    behind: Counter[str] = Counter()
    for given in checkpoint.state:
        dots = (index + 1 for index, letter in enumerate(given) if letter == ".")
        behind.update(given[:dot] for dot in dots if given[dot:] in own)
    behind[""] = len(own & checkpoint.state.keys())
    whole = sorted(prefix for prefix, count in behind.items() if count >= _LEAST_SHARE * len(own))
    if not whole or "" in whole:
        return checkpoint
    if len(whole) > 1:
        raise UsageError(
            f"{subject} weights '{path}' hold several networks of this shape, under the prefixes {', '.join(whole)}; "
            f"choose one with {_option(subject)}{whole[0].removesuffix('.')}."
        )
    return checkpoint.without(whole[0])


def harmless_types() -> list[Any]:
    """Return what a torch file may hold besides tensors: settings, paths and NumPy numbers, none of which runs code."""
    numbers = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and issubclass(kind, np.dtype)]
    pickled_with: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
    arrays = [
        (function, f"numpy.{package}.multiarray.{function.__name__}")
        for function in pickled_with
        for package in ("_core", "core")  # of NumPy 2 and 1
    ]
    paths = [pathlib.PosixPath, pathlib.PurePosixPath]
    return [argparse.Namespace, types.SimpleNamespace, *paths, np.dtype, np.ndarray, *numbers, *arrays]


def some(names: list[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _content(path: Path, subject: str) -> Any:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UsageError(
                f"{subject} weights '{path}' are a Git LFS pointer, not the weights; fetch them with `git lfs pull`."
            )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless_types()):
            # The outcome says whether it fits.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise anything (IndexError, struct.error, ...)
        code = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
        reason = str(error).split("\n")[0][:160] or type(error).__name__
        if code:
            reason = f"it holds objects of {code[1]}, which only running code could load"
        raise UsageError(
            f"{subject} weights '{path}' cannot be read as safetensors or a plain state dict ({reason}); "
            "save the model's state_dict() and give that file."
        ) from error


def _state_dicts(content: Any) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts in a file's content by their key, down to entries of entries; the whole file's is ''."""
    if _is_state_dict(content):
        return {"": dict(content)}
    found = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if _is_state_dict(value):
            found[str(name)] = dict(value)
        elif isinstance(value, Mapping):
            found |= {f"{name}.{key}": dict(inner) for key, inner in value.items() if _is_state_dict(inner)}
    return found


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _is_averaged(key: str) -> bool:
    return "ema" in key.lower().replace(".", "_").split("_")


def _chosen(found: Mapping[str, Any], path: Path, subject: str) -> str:
    """Return the key of the state dict that training scripts mean: timm's order, then the only averaged or raw one."""
    known = next((key for key in (*_AVERAGED, "", *_RAW) if key in found), None)
    if known is not None:
        return known
    candidates = [key for key in found if _is_averaged(key)] or list(found)
    if len(candidates) > 1:
        raise UsageError(
            f"{subject} weights '{path}' hold several state dicts: {', '.join(candidates)}; choose one with "
            f"{_option(subject)}{candidates[0]}."
        )
    return candidates[0]


def _option(subject: str) -> str:
    """Return what a user writes before the key: `compress analyze` has an option of its own."""
    return "--weights-key " if subject == "model" else f"--set {subject}.weights_key="


def _cleaned(checkpoint: Checkpoint) -> Checkpoint:
    """Take off what DistributedDataParallel and torch.compile put before names (timm's ``clean_state_dict``)."""
    state = clean_state_dict(checkpoint.state)
    if state.keys() == checkpoint.state.keys():
        return checkpoint
    first = next(iter(checkpoint.state))
    return replace(checkpoint, state=state, prefix=checkpoint.prefix + first.removesuffix(next(iter(state))))
