"""Checkpoints of a training: complete or absent, the newest good one found again.

Layout: ``FOLDER/FINGERPRINT/step-00001234-000005/`` with Accelerate's state (weights, optimizer, generators, EMA) and
``progress.json``. A training keeps its newest; one with other settings keeps its own beside it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vitcompress.core.errors import UsageError
from vitcompress.core.rundir import SETTINGS_SHOWN

_PROGRESS = "progress.json"
_FULL_DISK = ("PytorchStreamWriter", "inline_container")
"""Signs of it in what torch.save raises."""


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0
    """Epochs finished."""
    batches: int = 0
    """Batches of the current epoch finished, in this process."""
    steps: int = 0
    """Optimizer steps taken since the start."""
    seconds: float = 0.0
    """Wall time of training so far, all sessions."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sum of each loss term over the current epoch's batches whose terms are finite."""
    summed: int = 0
    """So many batches, of those that were read (``stages.training.readings``)."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean of each loss term over the last finished epoch."""
    precision: str = ""
    """What the training computes in; empty before its first step."""
    scales: dict[str, float] = field(default_factory=dict)
    """Factor of each balanced term (``stages.training.terms``)."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Norm of each term's gradient at the first batch of the newest epoch."""
    first: dict[str, dict[str, float]] = field(default_factory=dict)
    """``losses`` and ``gradient_norms`` of the first epoch."""
    images: int = 0
    """Images of the last finished epoch that were trained on, by all processes together."""
    skipped: int = 0
    """Steps, of ``steps``, that were not taken because a loss term or the gradient's norm was not finite."""
    skipped_in_a_row: int = 0
    """The newest of them, since a step that was taken."""
    first_skipped: str = ""
    """What was not finite at the first of them, and where."""


def _own_folder(folder: Path, fingerprint: str) -> Path:
    return folder / fingerprint[:SETTINGS_SHOWN]


def save_checkpoint(accelerator: Any, folder: Path, progress: Progress, fingerprint: str) -> None:
    """Write a checkpoint beside the last one, make it visible by one rename, then drop this training's older one.

    A UsageError is raised if the disk refuses; the last checkpoint stays.
    """
    folder = _own_folder(folder, fingerprint)
    target = folder / f"step-{progress.steps:08d}-{progress.batches:06d}"
    temporary = folder / f".{target.name}"
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*"):  # of a save that was cut off, or had no room
            shutil.rmtree(leftover, ignore_errors=True)
    accelerator.wait_for_everyone()
    with _report_full_disk(folder):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with _report_full_disk(folder):
            (temporary / _PROGRESS).write_text(json.dumps({"fingerprint": fingerprint, **asdict(progress)}))
            _flush(temporary)
            if target.exists():  # an earlier one that cannot be read: a readable one would have been resumed from
                _remove(target)
            temporary.replace(target)
        for other in folder.iterdir():
            if other != target:
                _remove(other)
    accelerator.wait_for_everyone()


def _remove(checkpoint: Path) -> None:
    """Take a checkpoint out of sight first, so that half of one is never found."""
    hidden = checkpoint.with_name(f".old-{checkpoint.name.lstrip('.')}")
    with suppress(OSError):
        checkpoint.replace(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _report_full_disk(folder: Path) -> Iterator[None]:
    """Turn what libraries raise when a disk is full into one sentence."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _FULL_DISK):
            raise
        raise UsageError(
            f"a checkpoint cannot be written to {folder} ({' '.join(str(error).split())[:120]}); make room on its "
            "disk, then the same command goes on from the last checkpoint."
        ) from error


def _flush(folder: Path) -> None:
    """Bring a folder's files to the disk before the rename makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def find_checkpoint(folder: Path, fingerprint: str) -> tuple[Path, Progress] | None:
    """Return the newest complete checkpoint made by a training with this fingerprint, and where that stood."""
    for path in sorted(_own_folder(folder, fingerprint).glob("step-*"), reverse=True):
        try:
            saved = json.loads((path / _PROGRESS).read_text())
            if saved.pop("fingerprint") == fingerprint:
                saved.setdefault("summed", saved["batches"])  # one of an earlier version, where all were finite
                return path, Progress(**saved)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # incomplete or of another version: the next older one may do
    return None
