"""How the end-to-end tests start `compress`, and the settings that make a run tiny."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from command_line import Result

TINY = (
    "distill.balance=gradients",
    "analysis.images=0",
    "teacher.args={depth: 2}",
    "student.args={depth: 2}",
    "teacher.epochs=2",
    "distill.epochs=2",
    "teacher.warmup_epochs=0",
    "distill.warmup_epochs=0",
    "teacher.batch_size=64",
    "distill.batch_size=64",
    "verify.latency_seconds=0.4",
    "verify.threads=1",
    "export.target=onnx",
    "export.precision=fp32",
    "verify.memory=false",
    "gates.max_accuracy_drop=null",
    "gates.min_speedup=null",
    "gates.above_chance=false",  # a few steps may have taught nothing
)
WHOLE = (*TINY, "export.target=auto", "export.precision=[fp32,fp16,int8]", "analysis.images=60")
"""Of the run that the fixture ``finished`` is."""
SHORT = (
    *TINY,
    "teacher.epochs=1",
    "distill.epochs=1",
    "teacher.lr=1.0e-4",
    "distill.lr=1.0e-4",
    "verify.latency_seconds=0.1",
)
"""One epoch of 22 steps of 64 images; the last evaluation batch has 39 of 64. AdamW turns rounding of gradients that
are zero in truth (biases of attention keys) into steps of its learning rate, so that is kept at what recipes use."""
NAMES = ("--teacher", "cait_s24", "--student", "deit_tiny")
# One thread: with as many spinning OpenMP threads as cores, anything else that runs makes torch wait for its barriers.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Finished:
    root: Path
    arguments: tuple[str, ...]
    """Of `compress run`, less --output."""
    result: Result


def crowded(folder: Path) -> Path:
    """A user's folder, in which this project's names and others that it imports are the user's own."""
    for name in ("pipeline", "core", "stages", "exporters"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('a folder of the user was imported')")
        (folder / name / "__main__.py").touch()
    for name in ("torch.py", "yaml.py"):
        (folder / name).write_text("raise SystemExit('a file of the user was imported')")
    return folder


def sets(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def command(*arguments: str | Path, python: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "vitcompress", *map(str, arguments)]


def as_process(*arguments: str | Path, python: tuple[str, ...] = (), cwd: Path | None = None) -> Result:
    """`compress ARGUMENTS...` as the user starts it."""
    done = subprocess.run(
        command(*arguments, python=python),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
