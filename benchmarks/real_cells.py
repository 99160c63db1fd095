"""The trainings of `real.py`: ours by the project's own stages, each beside the plain loop of the same steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from real_plain import plain, student, teacher
from rich.console import Console
from strategies_cell import adopt

from core.rundir import RunDirectory
from pipeline.config import dump_yaml, load_layer, merge, validate
from pipeline.plan import BY_NAME
from pipeline.request import identity, with_absolute_paths
from pipeline.resolve import resolve_models, resolve_training
from pipeline.runner import Runner

ROOT = Path(__file__).resolve().parent.parent
SIZE, TEACHER_SIZE = 112, 98
"""Pixels of student and teacher: both see a map of 7 x 7 patches."""
TEACHER, STUDENT = "vit_small_patch14_dinov2", "deit_tiny"
TEACHER_LR, STUDENT_LR = 3e-4, 1e-3
"""Of the plain loops, at every batch size: what a user would copy from the last project."""


@dataclass(frozen=True)
class Cell:
    """One set of images at one batch size and seed."""

    name: str
    """Of the images: ``fashion 2,000``."""
    data: Path
    classes: int
    batch: int
    seed: int
    teacher_epochs: int
    epochs: int

    @property
    def key(self) -> str:
        """A file name."""
        return f"{self.name}-batch{self.batch}-seed{self.seed}".replace(" ", "-").replace(",", "")


class Kept:
    """Results by name, in a file that is written after each of them, so that a benchmark that stops goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def once(self, key: str, measure: Callable[[], Any]) -> Any:
        """The result of that name, measured if it is not there."""
        if key not in self.found:
            began = time.monotonic()
            value = measure()
            self.found[key] = {"value": value, "took_seconds": time.monotonic() - began}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        return self.found[key]["value"]


def config_of(cell: Cell, weights: Path, sets: dict[str, Any] | None = None) -> Any:
    """What `compress run --data ... --control labels` with these epochs, batch and seed would resolve."""
    asked: dict[str, Any] = {
        "seed": cell.seed,
        "image_size": SIZE,
        "data": {"source": str(cell.data)},
        "teacher": {
            "model": TEACHER,
            "args": {"img_size": TEACHER_SIZE},
            "weights": str(weights),
            "tune_epochs": cell.teacher_epochs,
            "batch_size": 64,
        },
        "student": {"model": STUDENT, "strategy": "lift"},
        "distill": {"epochs": cell.epochs, "batch_size": cell.batch},
        "control": {"kind": "labels"},
        "export": {"target": ["onnx"]},
        "analysis": {"images": 0},
    }
    return with_absolute_paths(validate(merge(merge(load_layer("folder"), asked), sets or {})))


def our_teacher(cell: Cell, weights: Path, work: Path) -> dict[str, Any]:
    """Our teacher of these images, adapted with the defaults."""
    runner, resolved, seconds = _stages(config_of(cell, weights), work / f"{cell.key}-teacher", ("teacher",))
    record = runner.records["teacher"]
    return {
        "top1": record.val_top1,
        "probe_top1_tuning": record.probe_top1,
        "tuned_top1_tuning": record.tuned_top1,
        "epochs": record.epochs,
        "seconds": seconds["teacher"],
        "lr": resolved.teacher.lr,
        "folder": f"{cell.key}-teacher",
    }


def our_probe(cell: Cell, weights: Path, work: Path) -> dict[str, Any]:
    """The linear probe alone on the held-out images, which choose nothing."""
    config = config_of(cell, weights, {"teacher": {"tune": "probe"}})
    runner, _, seconds = _stages(config, work / f"{cell.key}-probe", ("teacher",))
    return {"top1": runner.records["teacher"].val_top1, "seconds": seconds["teacher"]}


def our_students(
    cell: Cell, weights: Path, work: Path, taught_by: str, name: str, sets: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Our student with the teacher, and with the labels alone (the control), and what the teacher was worth.

    Args:
        cell: what is trained.
        weights: the teacher's pretrained ones.
        work: run directories.
        taught_by: key of the cell whose teacher it is.
        name: of this way, for its folder.
        sets: settings besides the defaults.
    """
    folder = work / f"{cell.key}-{name}"
    config = config_of(cell, weights, sets)
    teacher = work / f"{taught_by}-teacher"
    runner, resolved, seconds = _stages(config, folder, ("teacher", "student", "distill", "control"), teacher)
    student, distill, control = (runner.records[stage] for stage in ("student", "distill", "control"))
    return {
        "with_teacher": control.distilled_top1,
        "labels": control.val_top1,
        "gain": [control.gain, control.gain_low, control.gain_high],
        "steps": distill.steps,
        "distill_seconds": distill.seconds,
        "labels_seconds": control.seconds,
        "stage_seconds": seconds,
        "lr": resolved.distill.lr,
        "precision": distill.precision,
        "source": student.source,
        "shares": {"first": distill.first_shares, "last": distill.shares},
        "folder": folder.name,
    }


def judged(work: Path, cell: Cell) -> list[dict[str, Any]]:
    """The gate on what the teacher was worth, with a limit below and one above it, by `compress verify`."""
    run = work / f"{cell.key}-default"
    gain = RunDirectory.existing(run).load_record("control", BY_NAME["control"].record).gain
    found = []
    for limit in (gain - 5, gain + 5):
        command = [sys.executable, "-m", "pipeline", "verify", str(run), "--set", f"gates.min_teacher_gain={limit:.1f}"]
        quick = ["--set", "verify.latency_seconds=5", "--set", "verify.throughput_batches=[]"]
        done = subprocess.run([*command, *quick], capture_output=True, text=True, cwd=ROOT, check=False)
        line = next((text for text in done.stdout.splitlines() if "teacher" in text and "gain" in text), "")
        found.append({"limit": limit, "exit_code": done.returncode, "line": line.strip()})
    return found


def advised(work: Path, weights: Path, images: Path) -> list[str]:
    """What `compress analyze` says of the real teacher at 224 px on 120 drawings."""
    output = work / "analysis"
    sample = images / "drawings-250" / "train"
    command = [sys.executable, "-m", "pipeline", "analyze", "--model", TEACHER, "--weights", str(weights)]
    command += ["--image-size", "224", "--data", str(sample), "--student", STUDENT, "--images", "120"]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"analyze ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout.splitlines()


def plain_teacher(cell: Cell, weights: Path) -> dict[str, Any]:
    """The plain loop on the teacher."""
    model = teacher(weights, TEACHER_SIZE, cell.classes)
    settings = {"epochs": cell.teacher_epochs, "batch": 64, "lr": TEACHER_LR, "layer_decay": 0.75}
    return asdict(plain(model, cell.data, seed=cell.seed, **settings))


def plain_student(cell: Cell) -> dict[str, Any]:
    """The plain loop on the student."""
    model = student(SIZE, cell.classes, cell.seed)
    return asdict(plain(model, cell.data, epochs=cell.epochs, batch=cell.batch, lr=STUDENT_LR, seed=cell.seed))


def _stages(
    config: Any, folder: Path, names: tuple[str, ...], taught_by: Path | None = None
) -> tuple[Runner, Any, dict[str, float]]:
    """Carry out stages of a run in ``folder``; those of the teacher are taken over from ``taught_by``."""
    models = resolve_models(config)
    if folder.exists() and not (folder / "state.json").is_file():
        shutil.rmtree(folder)
    run = RunDirectory.claim(folder, identity(models))
    seconds: dict[str, float] = {}
    with run.locked():
        runner = Runner(run, Console(stderr=True))
        if taught_by is not None:
            adopt(RunDirectory.existing(taught_by), run)
        resolved = resolve_training(models, runner.stage("data", models))
        (run.root / "config.yaml").write_text(dump_yaml(resolved))
        run.remember(resolved=resolved.model_dump(mode="json"), command="benchmarks/real.py")
        for name in names:
            began = time.monotonic()
            runner.stage(name, resolved)
            seconds[name] = time.monotonic() - began
    return runner, resolved, seconds
