"""How good are the defaults on real images, with really pretrained weights? Against plain timm loops of the same steps.

    python benchmarks/real.py                                 # about an hour on 2 quiet cores; writes docs/real.md
    python benchmarks/real.py --only batches --only digits    # 35 minutes more
    python benchmarks/real.py --only full                     # the first table at 98 and 112 pixels, another hour
    python benchmarks/real.py --only tasks                    # half an hour; writes docs/real-tasks.md alone

Parts: table (a teacher and a student of 2,000 images, by seed), control (the gate on what the teacher was worth), same
(labels alone from the same first weights), advice (the advisor on the real teacher), inits (first weights of a student,
compared), balance (shares of the loss before and after balancing), before (what a user met before and meets now,
`real_before.py`), cells (other numbers of images, other images), batches (students at other batch sizes, and the
drawings' by seed), digits (`make run` before and now), full (the table once more, at larger images), tasks (a CNN
pair, images without labels, several labels an image, embeddings: docs/real-tasks.md). Images and weights come from
Debian's and Python's registries (`real_data.py`). Every result is kept in --work as it is measured, so that the same
command goes on where it stopped; what does not fit into --minutes is listed as not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from real_before import CASES, DIGITS_CASES
from real_before import measure as before
from real_cells import (
    CONTROL,
    FURTHER_SEEDS,
    OTHER_BATCHES,
    Cell,
    Kept,
    advised,
    first_weights,
    judged,
    our_probe,
    our_student,
    our_teacher,
    plain_student,
    plain_teacher,
)
from real_data import CLASSES_OF_DRAWINGS, NAMES, drawings, fashion, weights
from real_page import cases, page, tasks_page
from real_tasks import KINDS, measured

from vitcompress.pipeline.machine import environment

ROOT = Path(__file__).resolve().parent.parent
CASES_PAGE = ROOT / "benchmarks" / "results" / "real-cases.md"
"""What the page leaves out: the advice, and what a user met before and meets now."""
FIRST_HOUR = ("table", "control", "same", "advice", "inits", "balance", "before", "cells")
PARTS = (*FIRST_HOUR, "batches", "digits", "full", "tasks")
TASKS_PAGE = ROOT / "docs" / "real-tasks.md"
HELD_OUT = 1000
EPOCHS = {500: 4, 2000: 4, 10_000: 1}
"""Of the student, by training images."""
TEACHER_EPOCHS = {500: 2, 2000: 2, 10_000: 1}
DRAWING_EPOCHS = 2
SAME_START = {"control": {"kind": "labels", "start": "same"}}
LABELS_ALONE = {"student": {"init": "random"}, "distill": {"alpha": 0.0, "features": []}}


def fashion_cell(images: Path, count: int, seed: int = 0, patches: str = "small") -> Cell:
    """So many images of Fashion-MNIST, batch 64."""
    data = fashion(images, count, HELD_OUT)
    return Cell(f"fashion {count:,}", data, len(NAMES), 64, seed, TEACHER_EPOCHS[count], EPOCHS[count], patches=patches)


def other_cells(images: Path) -> list[Cell]:
    """The other sets of images, batch 64."""
    drawn = Cell("drawings", drawings(images), CLASSES_OF_DRAWINGS, 64, 0, 2, DRAWING_EPOCHS)
    return [fashion_cell(images, 500), drawn, fashion_cell(images, 10_000)]


@dataclass(frozen=True)
class Bench:
    """What the parts share."""

    file: Path
    """The teacher's pretrained weights."""
    work: Path
    kept: Kept
    until: float
    """Of the monotonic clock, seconds; nothing is begun after it."""
    left_out: list[str] = field(default_factory=list)
    """What was not begun."""

    def measure(self, key: str, what: Callable[[], Any]) -> Any:
        """The result, kept or measured now; None if there is no time left to begin it."""
        if key not in self.kept.found and time.monotonic() > self.until:
            self.left_out.append(key)
            return None
        click.echo(f"{time.strftime('%H:%M:%S')} {key}", err=True)
        return self.kept.once(key, what)

    def probed(self, cell: Cell) -> None:
        """A teacher and a student, ours and plain in turn, what our teacher was worth, and its linear probe alone."""
        self.measure(f"plain-teacher {cell.key}", lambda: plain_teacher(cell, self.file))
        if self.measure(f"teacher {cell.key}", lambda: our_teacher(cell, self.file, self.work)) is None:
            self.left_out += [f"{kind} {cell.key}" for kind in ("plain-student", "default", "probe")]
            return
        self.measure(f"plain-student {cell.key}", lambda: plain_student(cell))
        self.student("default", cell, CONTROL)
        self.measure(f"probe {cell.key}", lambda: our_probe(cell, self.file, self.work))

    def before(self, cases: Iterable[str]) -> None:
        """What a user met in these cases before and meets now."""
        for case in cases:
            self.measure(f"before {case}", lambda case=case: before(self.work, case))

    def student(self, name: str, cell: Cell, sets: dict[str, Any], taught_by: Cell | None = None) -> None:
        """Our student of these settings, after the teacher of ``taught_by``: without it the cell's at batch 64."""
        teacher = (taught_by or replace(cell, batch=64)).key
        if f"teacher {teacher}" not in self.kept.found:
            self.left_out.append(f"{name} {cell.key}")
            return
        # From the same first weights another control is trained beside the student that is there.
        folder = "default" if name == "same" else name
        self.measure(f"{name} {cell.key}", lambda: our_student(cell, self.file, self.work, teacher, folder, sets))

    def alone(self, cells: Iterable[Cell], taught_by: Cell) -> None:
        """Students of labels alone, ours and plain in turn; the teacher of ``taught_by`` is there, and not asked."""
        for cell in cells:
            self.measure(f"plain-student {cell.key}", lambda cell=cell: plain_student(cell))
            self.student("labels", cell, LABELS_ALONE, taught_by)


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/real"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "docs" / "real.md", show_default=True)
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Repeatable; the first eight parts without it.")
def main(work: Path, output: Path, minutes: float, seeds: int, only: tuple[str, ...]) -> None:
    """Measure what is asked for, and write the page."""
    parts, images, until = only or FIRST_HOUR, work / "images", time.monotonic() + 60 * minutes
    bench = Bench(weights(images), work.resolve(), Kept(work / "results.json"), until)
    table = [fashion_cell(images, 2000, seed) for seed in range(seeds)]
    full = [replace(cell, patches="full") for cell in table]
    first, others = table[0], other_cells(images)
    if "table" in parts:
        for cell in table:
            bench.probed(cell)
    default = bench.kept.found.get(f"default {first.key}")
    if "control" in parts and default is not None:
        gain = default["value"]["gain"][0]
        bench.measure("control", lambda: judged(bench.work, first, bench.file, gain))
    if "same" in parts:
        for cell in table:
            bench.student("same", cell, SAME_START)
    if "advice" in parts:
        bench.measure("advice", lambda: advised(bench.work, bench.file, images))
    if "inits" in parts:
        bench.measure("inits", lambda: first_weights(bench.work, first))
    if "balance" in parts:
        bench.student("fixed", first, {"distill": {"balance": "fixed"}})  # the table has the balanced one
    if "before" in parts:
        bench.before(case for case in CASES if case not in DIGITS_CASES)
    if "cells" in parts:
        for cell in others:
            bench.probed(cell)
    if "batches" in parts:
        for cell in (first, *others):
            bench.alone((replace(cell, batch=batch) for batch in OTHER_BATCHES), cell)
        drawn = others[1]
        seeds_of_drawn = (replace(drawn, seed=seed) for seed in FURTHER_SEEDS)
        bench.alone((replace(cell, batch=batch) for cell in seeds_of_drawn for batch in (64, *OTHER_BATCHES)), drawn)
    if "digits" in parts:
        bench.before(DIGITS_CASES)
    if "full" in parts:
        for cell in full:
            bench.probed(cell)
    if "tasks" in parts:
        for name in KINDS:
            bench.measure(f"task {name}", lambda name=name: measured(name, bench.work, images, bench.file))
    bench.kept.note("machine", environment())
    earlier = bench.kept.found.get("left out", {"value": []})["value"]  # by another of the page's commands
    left_out = [key for key in dict.fromkeys((*earlier, *bench.left_out)) if key not in bench.kept.found]
    bench.kept.note("left out", left_out)
    if any(name.startswith("task ") for name in bench.kept.found):
        TASKS_PAGE.write_text(tasks_page(bench.kept.found, left_out))
        click.echo(f"wrote {TASKS_PAGE}")
    if parts != ("tasks",):
        output.write_text(page(bench.kept.found, left_out, table, full, [first, *others]))
        CASES_PAGE.write_text(cases(bench.kept.found))
        click.echo(f"wrote {output} and {CASES_PAGE}")


if __name__ == "__main__":
    main()
