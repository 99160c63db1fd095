"""How good are the defaults on real images, with really pretrained weights? Against plain timm loops of the same steps.

    python benchmarks/real.py                            # about an hour on 2 cores; writes docs/real.md
    python benchmarks/real.py --only table --seeds 1     # one part

Parts: table (a teacher and a student of 2,000 images, by seed), cells (other numbers of images, other images, other
batch sizes), control (the gate on what the teacher was worth), advice (the advisor on the real teacher). Images
and weights come from Debian's and Python's registries (`real_data.py`). Every result is kept in --work as it is
measured, so that the same command goes on where it stopped; what does not fit into --minutes is listed as not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from real_cells import (
    Cell,
    Kept,
    advised,
    judged,
    our_probe,
    our_students,
    our_teacher,
    plain_student,
    plain_teacher,
)
from real_data import CLASSES_OF_DRAWINGS, NAMES, drawings, fashion, weights
from real_page import page

from pipeline.machine import environment

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("table", "cells", "control", "advice")
HELD_OUT = 1000
SIZES = {500: 8, 2000: 4, 10_000: 1}
"""Epochs of the student by training images."""
DRAWING_EPOCHS = 4
BATCHES = (64, 16, 256)
TEACHER_EPOCHS = 2


class Budget:
    """Minutes that may be spent, and what was left out for want of them."""

    def __init__(self, minutes: float) -> None:
        self.until = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def measure(self, kept: Kept, key: str, what: Callable[[], Any]) -> Any:
        """The result, kept or measured now; None if there is no time left to begin it."""
        if key not in kept.found and time.monotonic() > self.until:
            self.left_out.append(key)
            return None
        click.echo(f"{time.strftime('%H:%M:%S')} {key}", err=True)
        return kept.once(key, what)


def cells(images: Path, seed: int) -> list[Cell]:
    """Every set of images at every batch size."""
    found = []
    for count, epochs in SIZES.items():
        data = fashion(images, count, HELD_OUT)
        cell = Cell(f"fashion {count:,}", data, len(NAMES), 64, seed, TEACHER_EPOCHS if count < 10_000 else 1, epochs)
        found += [replace(cell, batch=batch) for batch in BATCHES]
    drawn = Cell("drawings", drawings(images), CLASSES_OF_DRAWINGS, 64, seed, TEACHER_EPOCHS, DRAWING_EPOCHS)
    return found + [replace(drawn, batch=batch) for batch in BATCHES]


def compare(cell: Cell, file: Path, work: Path, kept: Kept, budget: Budget, *, defaults: bool) -> None:
    """One cell: teachers, then students, ours and plain in turn.

    Args:
        cell: what is trained.
        file: the teacher's pretrained weights.
        work: run directories.
        kept: results.
        budget: time.
        defaults: whether the student's first weights are also left to the defaults, beside random ones.
    """
    teacher = replace(cell, batch=64)
    measure = budget.measure
    measure(kept, f"plain-teacher {teacher.key}", lambda: plain_teacher(teacher, file))
    if measure(kept, f"teacher {teacher.key}", lambda: our_teacher(teacher, file, work)) is None:
        return
    measure(kept, f"plain-student {cell.key}", lambda: plain_student(cell))
    random = {"student": {"init": "random"}}
    measure(kept, f"random {cell.key}", lambda: our_students(cell, file, work, teacher.key, "random", random))
    if defaults:
        measure(kept, f"default {cell.key}", lambda: our_students(cell, file, work, teacher.key, "default"))


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/real"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "docs" / "real.md", show_default=True)
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Repeatable; every part without it.")
def main(work: Path, output: Path, minutes: float, seeds: int, only: tuple[str, ...]) -> None:
    """Measure what is asked for, and write the page."""
    parts, budget = only or PARTS, Budget(minutes)
    kept, images = Kept(work / "results.json"), work / "images"
    file = weights(images)
    table = [cell for seed in range(seeds) for cell in cells(images, seed) if cell.name == "fashion 2,000"]
    if "table" in parts:
        for cell in (cell for cell in table if cell.batch == 64):
            measure = budget.measure
            compare(cell, file, work, kept, budget, defaults=True)
            if cell.seed == 0:
                measure(kept, f"probe {cell.key}", lambda cell=cell: our_probe(cell, file, work))
    if "control" in parts:
        budget.measure(kept, "control", lambda: judged(work, table[0]))
    if "advice" in parts:
        budget.measure(kept, "advice", lambda: advised(work, file, images))
    if "cells" in parts:
        for cell in cells(images, 0):
            compare(cell, file, work, kept, budget, defaults=cell.batch == 64)
    kept.found["machine"] = {"value": environment(), "took_seconds": 0.0}
    output.write_text(page(kept.found, budget.left_out, cells(images, 0), seeds))
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
