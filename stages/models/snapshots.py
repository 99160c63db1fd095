"""The weights of a network at some epochs of its training: kept, listed and loaded again.

Layout: ``RUN/student/snapshots/FINGERPRINT/epoch-0004.safetensors``; names sort by epoch. Snapshots of the newest
finished training are kept; those of one with other settings go when it finishes.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from vitcompress.core.errors import UsageError
from vitcompress.core.files import inside, reference
from vitcompress.core.records import Snapshot
from vitcompress.core.rundir import SETTINGS_SHOWN
from vitcompress.stages.models.weights import save_weights


@dataclass(frozen=True)
class Snapshots:
    """Those of one training."""

    root: Path
    fingerprint: str
    epochs: int
    every: int | None
    """Epochs between two snapshots; None for none."""

    @property
    def due(self) -> range:
        """Return the epochs after which one is kept: not the last, whose weights the run keeps in any case."""
        return range(self.every, self.epochs, self.every) if self.every else range(0)

    @property
    def folder(self) -> Path:
        """Return the folder of this training."""
        return self.root / "student" / "snapshots" / self.fingerprint[:SETTINGS_SHOWN]

    def path(self, epoch: int) -> Path:
        """Return the file of the snapshot after ``epoch`` epochs."""
        digits = max(4, len(str(self.epochs)))
        return self.folder / f"epoch-{epoch:0{digits}d}.safetensors"

    def keep(self, epoch: int, state: dict[str, Tensor]) -> None:
        """Write the state, whole or not at all, if one is due after ``epoch``; a UsageError if the disk refuses."""
        if epoch not in self.due:
            return
        try:
            save_weights(state, self.path(epoch), self.root)
        except OSError as error:
            raise UsageError(
                f"a snapshot of the weights cannot be written to {self.folder} ({error.strerror or error}); make room "
                "on its disk or set distill.keep_every=null, then the same command goes on from the last checkpoint."
            ) from error

    def finish(self) -> tuple[Snapshot, ...]:
        """Return what is on disk, by epoch, at the end of the training; remove other trainings' and epochs' files."""
        paths = {epoch: self.path(epoch) for epoch in self.due if self.path(epoch).is_file()}
        for folder in self.folder.parent.glob("*"):
            if folder != self.folder or not paths:
                shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed costs room, not the run
        for path in set(self.folder.glob("*")) - set(paths.values()):
            path.unlink()
        with suppress(OSError):  # not there, or not empty
            self.folder.parent.rmdir()
        return tuple(Snapshot(epoch=epoch, **reference(path, self.root).model_dump()) for epoch, path in paths.items())


def load_snapshot(snapshot: Snapshot, root: Path) -> dict[str, Tensor] | str:
    """Return the weights on the CPU, or why there are none with the bytes that were recorded."""
    subject = f"the snapshot of epoch {snapshot.epoch} ({snapshot.path})"
    try:
        content = inside(root, snapshot.path).read_bytes()
    except OSError as error:
        return f"{subject} cannot be read ({error.strerror or error})"
    if hashlib.sha256(content).hexdigest() != snapshot.sha256:
        return f"{subject} is damaged: its SHA-256 is not the recorded one"
    state: dict[str, Tensor] = load(content)
    return state
