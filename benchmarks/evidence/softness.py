"""How soft the teacher's answers should be: its label smoothing, temperature, share, what is done where it errs.

    python benchmarks/evidence/softness.py --work runs/evidence      # trains what has no line yet; may be killed
    python benchmarks/evidence/softness.py --page                    # the table of docs/evidence/softness.md

Plain students of fashion and letters that start from their teacher's weights, the product's default where nothing is
downloaded. One process of one thread; several share what is left. They are judged on *choose*: this chooses what to
try, and proves nothing. The long trainings of fashion are repeated from the other teacher, and judged on *test*.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arms import ARMS, LONG_SEEDS, STUDIES, TUNING_SEED
from intervals import difference
from marked import write_marked
from run import RESULTS as ARM_LINES
from run import ROOT, Lines, claimed, summed_up
from schedule import Cell, Line, best_factor, passed
from strategies_table import paired

from vitcompress.core.bits import unpacked

RESULTS = ROOT / "benchmarks" / "results" / "evidence" / "softness.jsonl"
PAGE = ROOT / "docs" / "evidence" / "softness.md"
DIGITS = tuple(RESULTS.with_name(f"digits-{name}.json") for name in ("smoothed", "sharp"))
"""What `strategies.py` wrote of the embedded digits, with either teacher."""
SEEDS = (TUNING_SEED, TUNING_SEED + 1)
SHARP = "-sharp"
"""Added to a study, whose teacher learned smoothed labels: the same with a teacher that learned labels as they are."""


@dataclass(frozen=True)
class Try:
    """One training; without a temperature, of labels alone."""

    tau: float | None
    alpha: float = 0.9
    errors: str = "replace"
    study: str = "fashion"
    seed: int = TUNING_SEED

    @property
    def arm(self) -> str:
        """Its name as an arm."""
        return "plain/init:labels" if self.tau is None else f"plain/init:soft-{self.tau:g}-{self.alpha:g}-{self.errors}"

    @property
    def key(self) -> str:
        """Its name among the lines."""
        return f"{self.study} {self.arm} {self.seed}"

    @property
    def cell(self) -> Cell:
        """It as a training of the study, with the product's learning rate."""
        return Cell(self.study, "tune", self.arm, self.seed, 1.0)


KEPT = ("lr", "epochs", "steps", "teacher", "cpu_seconds", "choose", "losses", "at", "commit", "machine")
"""What is kept of a training's line."""
SETTINGS: dict[str, tuple[tuple[float | None, float, str], ...]] = {
    "fashion": (
        (None, 0.0, "replace"),
        *((tau, 0.9, "replace") for tau in (1.0, 2.0, 4.0)),
        *((tau, 0.5, "replace") for tau in (1.0, 2.0)),
        (1.0, 0.9, "imitate"),
    ),
    "letters": ((None, 0.0, "replace"), (1.0, 0.9, "replace")),
}
TRIES = tuple(
    Try(*setting, base + sharp, seed)
    for base, settings in SETTINGS.items()
    for sharp in ("", SHARP)
    for seed in SEEDS
    for setting in settings
)


LONG_ARMS = ("plain/init:labels", "plain/init:soft", "lift/init:soft+spectral")
LONG = tuple(Cell("fashion" + SHARP, "long", arm, seed) for seed in LONG_SEEDS for arm in LONG_ARMS)
"""The longer trainings of fashion that start from the teacher's weights, from the other teacher."""


def teacher_of(study: str) -> Cell:
    """The training of a study's teacher."""
    return Cell(study, "teacher", "try-0")


@contextmanager
def studies() -> Iterator[None]:
    """Let there be the studies with the other teachers."""
    others = {
        base + SHARP: replace(STUDIES[base], tries=(STUDIES[base].tries[0] | {"label_smoothing": 0.0},))
        for base in SETTINGS
    }
    with patch.dict(STUDIES, others):
        yield


def train_teacher(work: Path, study: str, arms: dict[str, Line], lines: Lines) -> dict[str, Line]:
    """Return the lines of arms with those of the study's other teacher, which is trained if it is not there."""
    from trainings import carry_out

    teacher = teacher_of(study)
    with claimed(work, teacher.folder, wait=True):
        if teacher.key not in lines.read() or not (work / "runs" / teacher.folder).is_dir():
            line = carry_out(work, teacher, {})
            lines.append({name: value for name, value in line.items() if name != "right"})
    ceiling = Cell(study.removesuffix(SHARP), "ceiling", "plain:labels")
    return arms | {teacher.key: lines.read()[teacher.key], replace(ceiling, study=study).key: arms[ceiling.key]}


def train(work: Path, one: Try, arms: dict[str, Line]) -> Line:
    """Train, and return the line."""
    from trainings import carry_out

    soft = {"features": [], "tau": one.tau, "alpha": one.alpha, "teacher_errors": one.errors}
    asked = ARMS["plain/init:labels"] if one.tau is None else {**ARMS["plain/init:soft"], "distill": soft}
    with patch.dict(ARMS, {one.arm: asked}):
        line = carry_out(work, one.cell, arms, "softness")
    return {"key": one.key, **asdict(one), **{name: line[name] for name in KEPT}}


def train_long(work: Path, cell: Cell, arms: dict[str, Line]) -> Line:
    """Train at the rate that was chosen with the smoothed teacher, and return the line."""
    from trainings import carry_out

    factor = best_factor(cell.study.removesuffix(SHARP), cell.arm, arms)
    line = carry_out(work, replace(cell, factor=factor), arms, "softness")
    kept = (*KEPT, "study", "arm", "seed", "factor", "test", "test_images", "right")
    return {"key": cell.key, **{name: line[name] for name in kept}}


def train_left(work: Path, lines: Lines) -> None:
    """Train what has no line and nobody else has begun; a UsageError is raised where a study has no teacher yet."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    arms = Lines(work / "arms.jsonl").read()
    for base in SETTINGS:
        if passed(base, arms) is None:
            raise click.UsageError(f"{work} has no teacher of {base} yet; first: run.py --work {work} --go-on.")
    for one in TRIES:
        with studies(), claimed(work, f"softness-{one.cell.folder}") as mine:
            if mine and one.key not in lines.read():
                known = train_teacher(work, one.study, arms, lines) if one.study.endswith(SHARP) else arms
                lines.append(train(work, one, known))
    for cell in LONG:
        with studies(), claimed(work, f"softness-{cell.folder}") as mine:
            if mine and cell.key not in lines.read():
                lines.append(train_long(work, cell, train_teacher(work, cell.study, arms, lines)))


def table(lines: dict[str, Line], study: str) -> list[str]:
    """A row for each setting, with its seeds and what it has above labels alone of the same seeds."""
    rows = [
        f"| a | tau | where the teacher errs | {' | '.join(f'seed {seed}' for seed in SEEDS)} | less labels alone |",
        "| ---: | ---: | --- |" + " ---: |" * (len(SEEDS) + 1),
    ]
    mine = [one for one in TRIES if one.study == study and one.key in lines]
    alone = {one.seed: lines[one.key]["choose"] for one in mine if one.tau is None}
    for tau, alpha, errors in SETTINGS[study.removesuffix(SHARP)]:
        top1 = {
            one.seed: lines[one.key]["choose"]
            for one in mine
            if (one.tau, one.alpha, one.errors) == (tau, alpha, errors)
        }
        more = [value - alone[seed] for seed, value in top1.items() if seed in alone]
        cells = [f"{top1[seed]:.2f}" if seed in top1 else "not measured" for seed in SEEDS]
        told = "labels alone | |" if tau is None else f"{alpha:g} | {tau:g} | {errors}"
        last = "" if tau is None else f"{mean(more):+.2f}" if len(more) == len(SEEDS) else "not measured"
        rows.append(f"| {told} | {' | '.join(cells)} | {last} |")
    return rows


def long_table(lines: dict[str, Line], arms: dict[str, Line]) -> list[str]:
    """A row for each arm: *test* after either teacher, and the difference, of the seeds that both have."""
    rows = [
        "| arm | seeds | smoothed, mean | not smoothed, mean | difference [95 %] |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for arm in LONG_ARMS:
        cells = {cell.seed: (replace(cell, study="fashion").key, cell.key) for cell in LONG if cell.arm == arm}
        pairs = {seed: (arms[old], lines[new]) for seed, (old, new) in cells.items() if old in arms and new in lines}
        if len(pairs) < 2:
            rows.append(f"| {arm} | {len(pairs)} | not measured | not measured | not measured |")
            continue
        found = {
            name: {seed: unpacked(pair[at]["right"], pair[at]["test_images"]) for seed, pair in pairs.items()}
            for at, name in enumerate(("before", "after"))
        }
        means = [f"{mean(pair[at]['test'] for pair in pairs.values()):.2f}" for at in (0, 1)]
        rows.append(
            f"| {arm} | {', '.join(map(str, sorted(pairs)))} | {' | '.join(means)} | "
            f"{difference({'after': 1, 'before': -1}, found).text()} |"
        )
    return rows


def digits_table() -> list[str]:
    """A row for the teacher and each method on the digits, after either teacher, from what strategies.py wrote."""
    before, after = (json.loads(file.read_text()) for file in DIGITS)
    rows = ["| | smoothed, mean | not smoothed, mean | difference [95 %] |", "| --- | ---: | ---: | --- |"]
    for name in ("teacher", *(one["method"] for one in before["methods"])):
        found = [
            {
                one["seed"]: one["top1"]
                for one in (told["teachers"] if name == "teacher" else told["cells"])
                if one.get("method", "teacher") == name
            }
            for told in (before, after)
        ]
        means = " | ".join(f"{mean(one.values()):.2f}" for one in found)
        rows.append(f"| {name} | {means} | {paired(found[1], found[0]).text('+.2f')} |")
    return rows


def text_of(lines: dict[str, Line], arms: dict[str, Line]) -> str:
    """What the page has between its marks."""
    text = []
    for base in SETTINGS:
        for study, words in ((base, "label smoothing 0.1, the default"), (base + SHARP, "no label smoothing")):
            line = (arms | lines).get(teacher_of(study).key)
            test = f"{line['test']:.2f} % of *test*" if line else "not measured"
            text += ["", f"{base}, teacher with {words} ({test}):", "", *table(lines, study)]
    epochs = STUDIES["fashion"].long
    about = f"fashion, {epochs} epochs, *test*; seeds and rates are those of [its longer trainings](long-fashion.md):"
    digits = (
        "The embedded digits (1,438 images; 359 are judged), three seeds, each with a teacher of its own, top-1 in "
        "percent (`soft`: plain with soft KD; `feature`: and the spectral loss; `lift`: likewise, lifted):"
    )
    return "\n".join(
        [*text, "", about, "", *long_table(lines, arms), "", summed_up(lines), "", digits, "", *digits_table(), ""]
    )


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)
@click.option("--page", is_flag=True, help="Only write the page, from the committed lines.")
def main(work: Path, page: bool) -> None:
    """Carry out what is asked for."""
    work, lines = work.resolve(), Lines(RESULTS)
    if not page:
        train_left(work, lines)
    text = text_of(lines.read(), Lines(ARM_LINES).read())
    write_marked(PAGE, "benchmarks/evidence/softness.py", text)
    click.echo(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
