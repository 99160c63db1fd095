"""The trainings of `real.py`: ours by the project's own stages, each beside the plain loop of the same steps."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from code_version import code_version
from real_before import compress, report_of
from real_plain import plain, student, teacher
from rich.console import Console
from strategies_cell import adopt
from student_init import load_pixels, rows

from vitcompress.core.records import ModelSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import dump_yaml, load_layer, merge, validate, with_absolute_paths
from vitcompress.pipeline.config.decide import BEFORE_DATA, WITH_DATA
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.rules import decide
from vitcompress.pipeline.plan import BY_NAME
from vitcompress.pipeline.request import identity
from vitcompress.pipeline.runner import Runner
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own

ROOT = Path(__file__).resolve().parent.parent
INIT_EPOCHS = 1
PATCHES = {"small": (64, 56), "full": (112, 98)}
"""Pixels of student and teacher: both see a map of 4 x 4 patches, or of 7 x 7."""
CONTROL = {"control": {"kind": "labels"}}
TEACHER, STUDENT = "vit_small_patch14_dinov2", "deit_tiny"
OTHER_BATCHES = (16, 256)
"""Of students, besides 64."""
FURTHER_SEEDS = (1, 2)
"""Of students of the drawings: with 400 held-out images one seed alone has a standard error of 2.4 points."""
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
    patches: str = "small"
    """Of ``PATCHES``."""

    @property
    def size(self) -> int:
        """Pixels of the student's side."""
        return PATCHES[self.patches][0]

    @property
    def teacher_size(self) -> int:
        """Pixels of the teacher's side."""
        return PATCHES[self.patches][1]

    @property
    def key(self) -> str:
        """A file name."""
        name = f"{self.name}-{self.size}px-batch{self.batch}-seed{self.seed}"
        return name.replace(" ", "-").replace(",", "")


@dataclass(frozen=True)
class _Times:
    """Of the processors, seconds."""

    all: float
    stolen: float
    """By the machine's host."""
    others: float
    """In which other programs ran than this one and those that it started and has ended."""

    @classmethod
    def now(cls) -> _Times:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        stolen = getattr(machine, "steal", 0.0)
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - stolen
        ours = own.user + own.system + own.children_user + own.children_system
        return cls(sum(machine), stolen, busy - ours)

    def __sub__(self, before: _Times) -> _Times:
        return _Times(self.all - before.all, self.stolen - before.stolen, max(0.0, self.others - before.others))


class Kept:
    """Results by name, in a file that is written after each of them, so that a benchmark that stops goes on.

    Of each is kept how long it took, by which commit, and what share of the processors' time the machine's host gave to
    others, and other programs of this machine took.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def once(self, key: str, measure: Callable[[], Any]) -> Any:
        """The result of that name, measured if it is not there."""
        if key not in self.found:
            began, before = time.monotonic(), _Times.now()
            value = measure()
            took, spent = time.monotonic() - began, _Times.now() - before
            kept = {"value": value, "took_seconds": took, "commit": code_version()}
            self.found[key] = kept | {"taken": spent.stolen / spent.all, "beside": spent.others / spent.all}
            self._write()
        return self.found[key]["value"]

    def note(self, key: str, value: Any) -> None:
        """Keep what was not measured and may change from call to call."""
        self.found[key] = {"value": value, "took_seconds": 0.0}
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")


def asked_of(cell: Cell, weights: Path) -> dict[str, Any]:
    """What is asked for besides the defaults: a config file's settings."""
    return {
        "seed": cell.seed,
        "image_size": cell.size,
        "data": {"source": str(cell.data)},
        "teacher": {
            "model": TEACHER,
            "args": {"img_size": cell.teacher_size},
            "weights": str(weights),
            "tune_epochs": cell.teacher_epochs,
            "batch_size": 64,
        },
        "student": {"model": STUDENT, "strategy": "lift"},
        "distill": {"epochs": cell.epochs, "batch_size": cell.batch},
        "export": {"target": ["onnx"]},
        "analysis": {"images": 0},
    }


def config_of(cell: Cell, weights: Path, sets: dict[str, Any] | None = None) -> Any:
    """What `compress run --config folder --config FILE` makes of these settings and ``sets``."""
    layers = merge(load_layer("folder"), asked_of(cell, weights))
    return with_absolute_paths(validate(merge(layers, sets or {})))


def our_teacher(cell: Cell, weights: Path, work: Path) -> dict[str, Any]:
    """Our teacher of these images, adapted with the defaults."""
    runner, resolved, seconds = staged(config_of(cell, weights), work / f"{cell.key}-teacher", ("teacher",))
    record = runner.records["teacher"]
    return {
        "top1": record.val_top1,
        "probe_top1_tuning": record.probe_top1,
        "tuned_top1_tuning": record.tuned_top1,
        "epochs": record.epochs,
        "seconds": seconds["teacher"],
        "train_seconds": _trained_seconds(RunDirectory.existing(work / f"{cell.key}-teacher")),
        "lr": resolved.teacher.lr,
        "folder": f"{cell.key}-teacher",
    }


def _trained_seconds(run: RunDirectory) -> float | None:
    """Of the steps of the teacher's training, evaluation left out; None where its probe was kept without any."""
    return max((line["seconds"] for line in run.metrics() if line["training"] == "teacher"), default=None)


def our_probe(cell: Cell, weights: Path, work: Path) -> dict[str, Any]:
    """The linear probe alone on the held-out images, which choose nothing."""
    config = config_of(cell, weights, {"teacher": {"tune": "probe"}})
    runner, _, seconds = staged(config, work / f"{cell.key}-probe", ("teacher",))
    return {"top1": runner.records["teacher"].val_top1, "seconds": seconds["teacher"]}


def our_student(
    cell: Cell, weights: Path, work: Path, taught_by: str, name: str, sets: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Our student; with ``control`` in the settings also the one of the labels alone, and what the teacher was worth.

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
    runner, resolved, seconds = staged(config, folder, ("teacher", "student", "distill", "control"), teacher)
    student, distill, control = (runner.records[stage] for stage in ("student", "distill", "control"))
    found = {
        "top1": getattr(distill, f"val_top1_{distill.chosen}"),
        "steps": distill.steps,
        "seconds": distill.seconds,
        "stage_seconds": seconds,
        "lr": resolved.distill.lr,
        "precision": distill.precision,
        "source": student.source,
        "shares": {"first": distill.first_shares, "last": distill.shares},
        "norms": {"first": distill.first_gradient_norms, "last": distill.gradient_norms},
        "folder": folder.name,
    }
    if control.kind != "none":
        found |= {
            "top1": control.distilled_top1,
            "labels": control.val_top1,
            "labels_seconds": control.seconds,
            "gain": [control.gain, control.gain_low, control.gain_high],
        }
    return found


def judged(work: Path, cell: Cell, weights: Path, gain: float) -> list[dict[str, Any]]:
    """The gate on the teacher's worth, with a limit below and one above ``gain``; the run goes on to its bundle."""
    run = work / f"{cell.key}-default"
    asked = work / "judged.yaml"
    quick = {"latency_seconds": 5, "throughput_batches": []}
    asked.write_text(yaml.safe_dump(asked_of(cell, weights) | CONTROL | {"verify": quick}))
    whole = ["run", "--config", "folder", "--config", str(asked), "--output", str(run)]
    found = []
    for limit in (gain - 5, gain + 5):
        command = [*whole, "--set", f"gates.min_teacher_gain={limit:.1f}"]
        done = compress(ROOT, *command)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-800:]}")
        (gate,) = (one for one in report_of(run)["gates"] if one["gate"] == "min_teacher_gain")
        found.append({"limit": limit, "exit_code": done.returncode, "gate": gate})
    return found


def first_weights(work: Path, cell: Cell) -> list[dict[str, Any]]:
    """A student's first weights compared, each trained on the labels alone by one plain loop (`student_init.py`)."""
    run = RunDirectory.existing(work / f"{cell.key}-teacher")
    record = run.load_record("teacher", BY_NAME["teacher"].record)
    model = load_own(build_model(record.model), record.weights, run.root)
    pixels = load_pixels(str(cell.data), record.preprocess, 2000, 1000)
    student = ModelSpec(arch="deit_tiny_patch16_224", args={"img_size": cell.size}, num_classes=cell.classes)
    found = rows(model, pixels, student, str(cell.data), epochs=INIT_EPOCHS)
    return [asdict(row) for row in found]


def advised(work: Path, weights: Path, images: Path) -> list[str]:
    """What `compress analyze` says of the real teacher at 224 px on 120 drawings."""
    output = work / "analysis"
    sample = images.resolve() / "drawings-250" / "train"
    command = ["analyze", "--model", TEACHER, "--weights", str(weights)]
    command += ["--image-size", "224", "--data", str(sample), "--student", STUDENT, "--images", "120"]
    done = compress(ROOT, *command, "--output", str(output))
    if done.returncode:
        raise SystemExit(f"analyze ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout.splitlines()


def plain_teacher(cell: Cell, weights: Path) -> dict[str, Any]:
    """The plain loop on the teacher."""
    model = teacher(weights, cell.teacher_size, cell.classes)
    settings = {"epochs": cell.teacher_epochs, "batch": 64, "lr": TEACHER_LR, "layer_decay": 0.75}
    return asdict(plain(model, cell.data, seed=cell.seed, **settings))


def plain_student(cell: Cell) -> dict[str, Any]:
    """The plain loop on the student."""
    model = student(cell.size, cell.classes, cell.seed)
    return asdict(plain(model, cell.data, epochs=cell.epochs, batch=cell.batch, lr=STUDENT_LR, seed=cell.seed))


def staged(
    config: Any, folder: Path, names: tuple[str, ...], taught_by: Path | None = None
) -> tuple[Runner, Any, dict[str, float]]:
    """Carry out stages of a run in ``folder``; those of the teacher are taken over from ``taught_by``."""
    facts = Facts(config)
    models, _ = decide(config, facts, BEFORE_DATA)
    if folder.exists() and not (folder / "state.json").is_file():
        shutil.rmtree(folder)
    run = RunDirectory.claim(folder, identity(models))
    seconds: dict[str, float] = {}
    with run.locked():
        runner = Runner(run, Console(stderr=True))
        if taught_by is not None:
            adopt(RunDirectory.existing(taught_by), run)
        resolved, _ = decide(models, facts.with_data(runner.stage("data", models)), WITH_DATA)
        (run.root / "config.yaml").write_text(dump_yaml(resolved))
        run.remember(resolved=resolved.model_dump(mode="json"), command="benchmarks/real.py")
        for name in names:
            began = time.monotonic()
            runner.stage(name, resolved)
            seconds[name] = time.monotonic() - began
    return runner, resolved, seconds
