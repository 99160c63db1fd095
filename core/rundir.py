"""The run directory: where a run's config, state, records, metrics and files live (docs/commands.md).

RUN/config.yaml            the resolved config
RUN/state.json             each stage: status, fingerprint, times
RUN/records/STAGE.json     what each stage hands to the next
RUN/metrics.jsonl          one line a training epoch
RUN/teacher/ student/ checkpoints/ export/ verify/ bundle/ report/
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact, references_in, sha256_of, write_atomic, writing
from vitcompress.core.record import Record

RecordType = TypeVar("RecordType", bound=Record)

STATE_SCHEMA = 1
SETTINGS_SHOWN = 12
"""Characters of a fingerprint in metrics and in folder names."""


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunDirectory:
    """One run on disk. Nothing is written before the folder is known to be this run's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def existing(cls, root: Path) -> RunDirectory:
        """Return the run at ``root``; a UsageError is raised where there is none."""
        if not (root / "state.json").is_file():
            raise UsageError(
                f"'{root}' is not a run directory (it has no state.json); give the folder of a `compress run`."
            )
        return cls(root)

    @classmethod
    def claim(cls, root: Path, identity: dict[str, Any]) -> RunDirectory:
        """Return the run at ``root``, made when it does not exist.

        ``identity`` is what makes this run this run (models, strategy, data, seed), as JSON values. A UsageError is
        raised as by ``begun``, or where the folder cannot be written.
        """
        run = cls(root)
        if cls.begun(root, identity):
            return run
        with writing(f"output '{root}'"):
            root.mkdir(parents=True, exist_ok=True)
            run._write_state({"schema": STATE_SCHEMA, "identity": identity, "created": utc_now(), "stages": {}})
        return run

    @classmethod
    def begun(cls, root: Path, identity: dict[str, Any]) -> bool:
        """Return whether ``root`` has this run (False: it is free); a UsageError is raised if it has anything else."""
        run = cls(root)
        if root.exists() and not root.is_dir():
            raise UsageError(f"output '{root}' is a file; give a folder with --output.")
        if run.state_path.is_file():
            theirs = run.state()["identity"]
            if theirs != identity:
                changed = "; ".join(
                    f"{key} was {theirs.get(key)!r}, now {identity.get(key)!r}"
                    for key in sorted({*theirs, *identity})
                    if theirs.get(key) != identity.get(key)
                )
                raise UsageError(f"output '{root}' holds another run ({changed}); give a different --output.")
            return True
        if root.is_dir() and any(entry.name != ".lock" for entry in root.iterdir()):
            raise UsageError(f"output '{root}' is not empty and not a run directory; give a new folder with --output.")
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run against other processes; a UsageError is raised where one holds it, or it cannot be written."""
        lock = FileLock(self.root / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"run '{self.root}' is in use by another process; wait for it, or give a different --output."
            ) from error
        except OSError as error:
            raise UsageError(
                f"run '{self.root}' cannot be written ({error.strerror}); check its permissions."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def state_path(self) -> Path:
        """Return the path of state.json."""
        return self.root / "state.json"

    def state(self) -> dict[str, Any]:
        """Return the whole of state.json; a UsageError is raised if it is damaged or of another version."""
        try:
            state = json.loads(self.state_path.read_text())
            if state["schema"] == STATE_SCHEMA:
                if not (isinstance(state["stages"], dict) and isinstance(state["identity"], dict)):
                    raise TypeError("stages or identity is no mapping")
                return dict(state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.state_path} is damaged ({error}); restore it or start again in a different --output."
            ) from error
        raise UsageError(
            f"{self.state_path} has schema {state['schema']!r}, this version reads {STATE_SCHEMA}; "
            "use the version that made the run, or a different --output."
        )

    def _write_state(self, state: dict[str, Any]) -> None:
        write_atomic(self.state_path, json.dumps(state, indent=2) + "\n")

    def remember(self, **values: Any) -> None:
        """Set top-level entries of state.json (such as the last request)."""
        self._write_state({**self.state(), **values})

    def mark(self, stage: str, status: str, fingerprint: str, **extra: Any) -> None:
        """Record a stage's status (``running``, ``done``, ``failed`` or ``interrupted``)."""
        state = self.state()
        state["stages"][stage] = {"status": status, "fingerprint": fingerprint, "at": utc_now(), **extra}
        self._write_state(state)

    def stage_state(self, stage: str) -> dict[str, Any]:
        """Return the stage's entry in state.json; empty when it never ran."""
        return dict(self.state()["stages"].get(stage, {}))

    def save_record(self, stage: str, record: Record) -> str:
        """Write a stage's record and return its SHA-256, for ``mark``."""
        path = self._record_path(stage)
        write_atomic(path, record.model_dump_json(indent=2) + "\n")
        return sha256_of(path)

    def _record_path(self, stage: str) -> Path:
        return self.root / "records" / f"{stage}.json"

    def load_record(self, stage: str, kind: type[RecordType]) -> RecordType:
        """Return the stage's record; a UsageError is raised if the stage never finished or the record is damaged."""
        path = self._record_path(stage)
        try:
            return kind.model_validate_json(path.read_text())
        except FileNotFoundError as error:
            raise UsageError(
                f"run '{self.root}' has no finished '{stage}' stage; finish it with `compress run`."
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is damaged or from another version; delete it to recompute the stage.") from error

    def reusable(
        self, stage: str, fingerprint: str, kind: type[RecordType], *, key: str = "fingerprint"
    ) -> RecordType | None:
        """Return the stage's record if it was made from the same inputs and every file it names is intact; else None.

        ``fingerprint`` is what the entry ``key`` of the stage's state must be: that of everything (``fingerprint``), or
        of all but the files outside that it was made from (``settings``).
        """
        state = self.stage_state(stage)
        if state.get("status") != "done" or state.get(key) != fingerprint:
            return None
        path = self._record_path(stage)
        if not path.is_file() or sha256_of(path) != state.get("record"):
            return None  # also when killed between writing a new record and noting what it was made for
        try:
            record = self.load_record(stage, kind)
        except UsageError:
            return None  # a damaged record costs a recomputation, not the run
        return record if all(is_intact(ref, self.root) for ref in references_in(record)) else None

    def forget_metrics(self, training: str, settings: str, after_epoch: int) -> None:
        """Drop the lines of a training with these settings (a fingerprint) that come after an epoch."""
        path = self.root / "metrics.jsonl"
        kept = [line for line in self.metrics() if not _is_later(line, training, settings, after_epoch)]
        text = "".join(f"{json.dumps(line)}\n" for line in kept)
        if path.is_file() and text != path.read_text(errors="replace"):  # a line that was cut off goes too
            write_atomic(path, text)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the whole lines of metrics.jsonl: one an epoch of each training."""
        path = self.root / "metrics.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        return [whole for line in lines if (whole := _whole(line)) is not None]

    def append_metrics(self, values: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with (self.root / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"at": utc_now(), **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole(line: str) -> dict[str, Any] | None:
    """Return a line of metrics; None if it was not written to its end, or damaged."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _is_later(entry: dict[str, Any], training: str, settings: str, epoch: int) -> bool:
    own = entry.get("training") == training and entry.get("settings") == settings[:SETTINGS_SHOWN]
    return own and entry.get("epoch", 0) > epoch
