"""The folder of a sweep: plan.json, config.yaml, the study, trials/NNN (a run each), logs/NNN.txt of what it said."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from filelock import FileLock
from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic, writing
from vitcompress.core.record import Record
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.api.arguments import assignments
from vitcompress.pipeline.sweep.space import Space, grid, import_optuna, point_of

_SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "fuse.sshfs", "9p", "afs")
"""Beginnings of the names of file systems on which SQLite's locks do not hold."""


class Plan(Record):
    """What a sweep was asked for."""

    config: dict[str, Any]
    """Settings of all trials, as requested."""
    space: Space
    trials: int
    """All of them, finished ones included."""
    seed: int
    storage: Literal["sqlite", "journal"]
    host: str
    """Machine that it was begun on."""
    folder: str
    """Folder that relative paths of settings are relative to."""


@dataclass(frozen=True)
class Sweep:
    """A sweep on disk; ``root`` is absolute."""

    root: Path
    plan: Plan

    @classmethod
    def begin(cls, root: Path, plan: Plan) -> Sweep:
        """Return the sweep at ``root``, begun if it is not there yet, with as many trials as ``plan`` has.

        A UsageError is raised where something else is there, or SQLite does not suit the file system.
        """
        root = root.resolve()
        if (root / "plan.json").is_file():
            theirs = cls.existing(root).plan
            names = ("config", "space", "seed", "storage")
            if changed := [name for name in names if getattr(theirs, name) != getattr(plan, name)]:
                raise UsageError(f"'{root}' holds another sweep (other {', '.join(changed)}); give a new --output.")
            plan = theirs.model_copy(update={"trials": plan.trials})
        elif root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UsageError(f"output '{root}' is not empty and no sweep; give a new folder with --output.")
        mounts = {one.mountpoint: one.fstype for one in psutil.disk_partitions(all=True)}
        kind = next((mounts[name] for name in map(os.fspath, (root, *root.parents)) if name in mounts), "")
        if plan.storage == "sqlite" and kind.startswith(_SHARED):
            raise UsageError(f"'{root}' is on {kind}, where SQLite loses data; use --storage journal.")
        with writing(f"output '{root}'"):
            write_atomic(root / "config.yaml", yaml.safe_dump(plan.config, sort_keys=False))
            write_atomic(root / "plan.json", plan.model_dump_json(indent=2) + "\n")
        return cls(root, plan)

    @classmethod
    def existing(cls, root: Path) -> Sweep:
        """Return the sweep at ``root``; a UsageError is raised where there is none, or one of another machine alone."""
        root = root.resolve()
        try:
            plan = Plan.model_validate_json((root / "plan.json").read_text())
        except (OSError, ValidationError) as error:
            raise UsageError(f"'{root}' is no sweep of this version; begin one with `compress sweep`.") from error
        if plan.storage == "sqlite" and plan.host != socket.gethostname():
            raise UsageError(
                f"sweep '{root}' keeps its study in SQLite, for one machine, and was begun on {plan.host}; begin one "
                "with --storage journal to share it among machines."
            )
        return cls(root, plan)

    @cached_property
    def study(self) -> Any:
        """Optuna's study: held-out accuracy, percent, upwards, and operations of an image downwards."""
        storages, storage = import_optuna().storages, f"sqlite:///{self.root / 'study.db'}"
        if self.plan.storage == "journal":
            path = str(self.root / "study.journal")
            lock = storages.journal.JournalFileOpenLock(path)
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(path, lock))
        aims = ["maximize", "minimize"]
        return import_optuna().create_study(storage=storage, study_name="sweep", directions=aims, load_if_exists=True)

    def trials(self, *states: str) -> list[Any]:
        """Return Optuna's trials in these states, all without any."""
        return [one for one in self.study.get_trials(deepcopy=False) if not states or one.state.name in states]

    def untried(self) -> list[dict[str, Any]] | None:
        """Return the points that are left of a space that is tried point by point; None where points are searched."""
        points, tried = grid(self.plan.space, self.plan.trials, self.plan.seed), [one.params for one in self.trials()]
        return [point for point in points if point not in tried] if points else None

    @property
    def left(self) -> int:
        """Trials that are not finished, or not begun."""
        begun, done = len(self.trials()), len(self.trials("COMPLETE", "PRUNED", "FAIL"))
        untried = self.untried()
        new = self.plan.trials - begun if untried is None else min(self.plan.trials - begun, len(untried))
        return max(0, new) + begun - done

    def lock(self, name: str) -> FileLock:
        """Return a lock that ends with the process that holds it."""
        (self.root / "locks").mkdir(exist_ok=True)
        return FileLock(self.root / "locks" / name)

    def run(self, trial: Any) -> RunDirectory:
        """Return the run directory of a trial."""
        return RunDirectory(self.root / "trials" / f"{trial.number:03d}")

    def settings(self, trial: Any) -> dict[str, Any]:
        """Return what a trial has of the space."""
        return point_of(self.plan.space, trial.params)

    def words(self, trial: Any) -> list[str]:
        """Return the options of `compress run` for a trial, in the plan's folder."""
        sets = [word for pair in assignments(self.settings(trial)) for word in ("--set", pair)]
        return ["--config", str(self.root / "config.yaml"), *sets, "-o", str(self.run(trial).root)]
