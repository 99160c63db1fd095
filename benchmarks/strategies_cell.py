"""One cell of `strategies.py`: a run directory made by the project's own stages, as far as `fold`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vitcompress.core.files import references_in, write_atomic
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import RunConfig, dump_yaml
from vitcompress.pipeline.config.decide import BEFORE_DATA, WITH_DATA
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.rules import decide
from vitcompress.pipeline.plan import BY_NAME
from vitcompress.pipeline.request import identity, notes
from vitcompress.pipeline.runner import Runner


@dataclass(frozen=True)
class Task:
    """One cell, or (method None) the teacher that the cells of its seed share."""

    method: str | None
    config: RunConfig
    folder: Path
    command: str
    quiet: bool

    @property
    def teacher_folder(self) -> Path:
        """The run directory of the teacher of its seed."""
        return self.folder.parent / "teacher"


def carry_out(task: Task) -> tuple[dict[str, Any], bool]:
    """A cell's numbers, computed or reused; and whether anything was computed.

    Raises:
        CompressError: whatever its stages raise.
    """
    facts = Facts(task.config)
    models, _ = decide(task.config, facts, BEFORE_DATA)
    run = RunDirectory.claim(task.folder, identity(models))
    with run.locked(), _console(task) as console:
        runner = Runner(run, console)
        if task.method is not None:
            adopt(RunDirectory.existing(task.teacher_folder), run)
        resolved, _ = decide(models, facts.with_data(runner.stage("data", models)), WITH_DATA)
        write_atomic(run.root / "config.yaml", dump_yaml(resolved))
        run.remember(resolved=resolved.model_dump(mode="json"), command=task.command)
        if task.method is None:
            runner.stage("teacher", resolved)
            return _teacher_numbers(runner, resolved), bool(runner.computed)
        runner.finished("teacher", resolved)  # never trained here
        for name in ("student", "distill", "fold"):
            runner.stage(name, resolved)
        return {"method": task.method, **_numbers(runner, resolved, run.root)}, bool(runner.computed)


@contextmanager
def _console(task: Task) -> Iterator[Console]:
    """The screen; or, where cells run side by side, the log in the cell's folder."""
    if not task.quiet:
        yield Console(stderr=True)
        return
    with (task.folder / "log.txt").open("a") as log:
        yield Console(file=log, width=200)


def adopt(teacher: RunDirectory, cell: RunDirectory) -> None:
    """Give ``cell`` the finished data and teacher stages of ``teacher``, files included."""
    for name in ("data", "teacher"):
        entry = teacher.stage_state(name)
        record = teacher.load_record(name, BY_NAME[name].record)
        if cell.reusable(name, entry["fingerprint"], BY_NAME[name].record) == record:
            continue
        for ref in references_in(record):
            target = cell.root / ref.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(teacher.root / ref.path, target)
        kept = {key: entry[key] for key in ("settings", "seconds")}
        cell.mark(name, "done", entry["fingerprint"], record=cell.save_record(name, record), **kept)


def _teacher_numbers(runner: Runner, config: RunConfig) -> dict[str, Any]:
    data, teacher = runner.records["data"], runner.records["teacher"]
    return {
        "seed": config.seed,
        "top1": teacher.val_top1,
        "epochs": teacher.epochs,
        "source": teacher.source,
        "parameters": teacher.cost.parameters,
        "macs": teacher.cost.macs,
        "weights": teacher.weights.sha256,
        "train_images": data.train_images,
        "held_out_images": data.val_images,
        "split": data.split,
        "config": config.model_dump(mode="json"),
        "notes": notes(config),
    }


def _numbers(runner: Runner, config: RunConfig, root: Path) -> dict[str, Any]:
    """A student's numbers: top-1 of the averaged weights wherever there are any, never of the better of the two."""
    teacher, student, distill, fold = (runner.records[name] for name in ("teacher", "student", "distill", "fold"))
    graph = "lift-folded" if "lift-folded" in fold.graphs else next(iter(fold.graphs))
    averaged = distill.val_top1_ema is not None
    return {
        "seed": config.seed,
        "top1": distill.val_top1_ema if averaged else distill.val_top1_raw,
        "weights_judged": "ema" if averaged else "raw",
        "top1_raw": distill.val_top1_raw,
        "top1_ema": distill.val_top1_ema,
        "graph": graph,
        "parameters": fold.costs[graph].parameters,
        "macs": fold.costs[graph].macs,
        "epochs": distill.epochs,
        "steps": distill.steps,
        "seconds": distill.seconds,
        "teacher_weights": teacher.weights.sha256,
        "explanation": student.explanation,
        "folder": f"{root.parent.name}/{root.name}",
    }
