"""A tiny run, finished once; the same run killed, and on a disk that refuses to write."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from damage_trial import Ended, forked
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
TINY = {
    "analysis.images": "32",
    "teacher.args": "{depth: 1}",
    "student.args": "{depth: 1}",
    "teacher.epochs": "1",
    "distill.epochs": "2",
    "teacher.warmup_epochs": "0",
    "distill.warmup_epochs": "0",
    "teacher.batch_size": "64",
    "distill.batch_size": "64",
    "distill.views": "1",
    "distill.checkpoint_seconds": "0",
    "verify.latency_seconds": "0.4",
    "verify.threads": "1",
    "verify.memory": "false",
    "export.target": "onnx",
    "export.precision": "fp32",
    "gates.max_accuracy_drop": "null",
    "gates.min_speedup": "null",
    "gates.above_chance": "false",
}
DISKS = {"no room": "ENOSPC", "broken": "EIO", "too many open files": "EMFILE"}


def arguments(root: Path) -> list[str | Path]:
    """`compress` ARGUMENTS of the tiny run."""
    sets = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    return ["run", "--teacher", "deit_small", "--student", "deit_tiny", *sets, "--output", root]


@dataclass(frozen=True)
class Base:
    """The finished run."""

    root: Path
    images: Path
    """Digits to classify."""
    baseline: Path
    """For check."""
    seconds: float
    """From nothing, as a process."""
    calls: dict[str, int]
    """System calls that wrote into it, by the error that refuses them; of EMFILE those that opened files there."""
    said: dict[str, str] = field(default_factory=dict)
    """Output of each command on it."""

    def words(self, command: str, root: Path) -> list[str | Path]:
        """Of a command on a copy."""
        return {
            "doctor": ["doctor", root],
            "check": ["check", root, "--baseline", self.baseline, "--output", root.parent / "checked"],
            "predict": ["predict", root / "bundle", self.images],
            "compare": ["compare", root, self.root],
        }[command]


def finished(folder: Path, trial: Path) -> Base:
    """The run in ``folder``, carried out if it is not there; what is said of it, of a copy in ``trial``."""
    root, images, baseline, facts = (folder / name for name in ("run", "images", "baseline.json", "facts.json"))
    if not facts.is_file() or "calls" not in json.loads(facts.read_text()):  # of an earlier version of this file
        shutil.rmtree(folder, ignore_errors=True)
        images.mkdir(parents=True)
        for index, pixels in enumerate(load_digits().images[:12]):
            Image.fromarray((pixels * 15.9).astype("uint8")).save(images / f"{index:02d}.png")
        began = time.monotonic()
        process = started(root, counting=folder / "writes")
        if process.wait():
            raise SystemExit("the tiny run itself did not end well")
        seconds = time.monotonic() - began
        done = forked(["check", root, "--baseline", baseline, "--update"], folder)
        if done.code:
            raise SystemExit(f"no baseline: {done.last}")
        writes, openings = json.loads((folder / "writes").read_text())
        calls = {"ENOSPC": writes, "EIO": writes, "EMFILE": openings}
        facts.write_text(json.dumps({"seconds": seconds, "calls": calls}))
    held = json.loads(facts.read_text())
    base = Base(root, images, baseline, held["seconds"], held["calls"])
    for command in ("doctor", "check", "predict", "compare"):
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(root, trial / "run")
        done = forked(base.words(command, trial / "run"), trial)
        if done.code:
            raise SystemExit(f"{command} on the undamaged run ended with {done.code}: {done.last}")
        base.said[command] = done.out
    return base


def started(root: Path, *, counting: Path | None = None, refusing: tuple[int, str] | None = None) -> Any:
    """The run as a process of its own group.

    Args:
        root: the run directory, new or begun.
        counting: a file that is given the numbers of writes and openings in it when the process ends.
        refusing: from which of them on, and with which error.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if counting or refusing:
        environment |= {"LD_PRELOAD": str(shim(root.parent)), "SHIM_FOLDER": str(root)}
    if counting:
        environment["SHIM_COUNT"] = str(counting)
    if refusing:
        import errno

        environment |= {"SHIM_AFTER": str(refusing[0]), "SHIM_ERRNO": str(getattr(errno, refusing[1]))}
    command = [sys.executable, "-m", "vitcompress", *map(str, arguments(root))]
    return subprocess.Popen(
        command,
        env=environment,
        cwd=HERE.parent,
        stdout=subprocess.PIPE if refusing else subprocess.DEVNULL,
        stderr=subprocess.PIPE if refusing else subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def shim(folder: Path) -> Path:
    """The library that refuses writes, compiled into ``folder``."""
    library = folder / "refuse.so"
    folder.mkdir(parents=True, exist_ok=True)
    if not library.is_file():
        command = ["gcc", "-shared", "-fPIC", "-O1", str(HERE / "refuse.c"), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(library))
    return library


def killed(base: Base, trial: Path, moment: float) -> dict[str, Any]:
    """The run from nothing, killed at a share of its time, and started again.

    The time is that of the base run; where this run was faster and ended before, it is tried again with its own time.
    """
    seconds, early = base.seconds, True
    while early:
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir(parents=True)
        process, began = started(trial / "run"), time.monotonic()
        try:
            process.wait(seconds * moment)
            seconds = time.monotonic() - began
        except subprocess.TimeoutExpired:
            early = False
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    first = {"outcome": "killed", "said": "", "seconds": 0.0}
    again = forked(arguments(trial / "run"), trial)
    return {"outcomes": {"first": first, "again": compared(base, trial, again)}}


def refused(base: Base, trial: Path, disk: str, moment: float) -> dict[str, Any]:
    """The run from nothing, refused from a share of its writes (or openings) on, and started again on a sound disk."""
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    process = started(trial / "run", refusing=(max(1, int(base.calls[DISKS[disk]] * moment)), DISKS[disk]))
    began = time.monotonic()
    out, err = process.communicate()
    first = Ended(process.returncode, out, err, time.monotonic() - began).judged("as before")
    if first["outcome"] == "noticed" and not any(
        word in first["said"].lower() for word in ("space", "input/output", "open files")
    ):
        first["outcome"] = "another cause was told"
    again = forked(arguments(trial / "run"), trial)
    return {"outcomes": {"first": first, "again": compared(base, trial, again)}}


def compared(base: Base, trial: Path, again: Ended) -> dict[str, Any]:
    """How the second attempt ended, and whether its student is the undisturbed one, byte for byte."""
    found = again.judged("as before")
    student = trial / "run" / "student" / "model.safetensors"
    if again.code == 0 and student.read_bytes() != (base.root / "student" / "model.safetensors").read_bytes():
        found["outcome"] = "other weights"
    return found


def same_answers(base: Base, root: Path, trial: Path) -> bool:
    """Whether the bundle of a copy classifies the digits as the finished run's does."""
    done = forked(base.words("predict", root), trial)
    return done.code == 0 and done.out == base.said["predict"]
