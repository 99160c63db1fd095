"""How soft the teacher's answers should be: temperature, share and what is done where the teacher errs.

    python benchmarks/evidence/softness.py --work runs/evidence      # trains what has no line yet; may be killed
    python benchmarks/evidence/softness.py --page                    # the table of docs/evidence/softness.md

Plain students of fashion, with the settings of the plan except for those of soft KD. One process of one thread; several
share what is left. They are judged on *choose*: this chooses what to try, and proves nothing.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arms import ARMS, TUNING_SEED
from marked import write_marked
from run import ROOT, Lines, claimed, summed_up
from schedule import Cell, Line, passed

RESULTS = ROOT / "benchmarks" / "results" / "evidence" / "softness.jsonl"
PAGE = ROOT / "docs" / "evidence" / "softness.md"
SEEDS = (TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2)


@dataclass(frozen=True)
class Try:
    """One training; without a temperature, of labels alone."""

    tau: float | None
    alpha: float = 0.9
    errors: str = "replace"
    seed: int = TUNING_SEED

    @property
    def arm(self) -> str:
        """Its name as an arm."""
        return "plain:labels" if self.tau is None else f"plain:soft-{self.tau:g}-{self.alpha:g}-{self.errors}"

    @property
    def key(self) -> str:
        """Its name among the lines."""
        return f"{self.arm} {self.seed}"


SETTINGS = (
    (None, 0.0, "replace"),
    *((tau, 0.9, "replace") for tau in (1.0, 2.0, 4.0)),
    *((tau, 0.5, "replace") for tau in (1.0, 2.0, 4.0)),
    *((tau, 0.9, "imitate") for tau in (1.0, 2.0)),
)
TRIES = tuple(Try(*setting, seed) for seed in SEEDS for setting in SETTINGS)


def train(work: Path, one: Try, arms: dict[str, Line]) -> Line:
    """Train with the product's learning rate, and return the line."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    from trainings import carry_out

    soft = {"features": [], "tau": one.tau, "alpha": one.alpha, "teacher_errors": one.errors}
    asked = ARMS["plain:labels"] if one.tau is None else {**ARMS["plain:soft"], "distill": soft}
    with patch.dict(ARMS, {one.arm: asked}):
        line = carry_out(work, Cell("fashion", "tune", one.arm, one.seed, 1.0), arms, "softness")
    kept = ("lr", "epochs", "steps", "teacher", "cpu_seconds", "choose", "losses", "at", "commit", "machine")
    return {"key": one.key, **asdict(one), **{name: line[name] for name in kept}}


def table(lines: dict[str, Line]) -> list[str]:
    """A row for each setting, with its seeds and what it has above labels alone of the same seeds."""
    rows = [
        f"| a | tau | where the teacher errs | {' | '.join(f'seed {seed}' for seed in SEEDS)} | less labels alone |",
        "| ---: | ---: | --- |" + " ---: |" * (len(SEEDS) + 1),
    ]
    alone = {one.seed: lines[one.key]["choose"] for one in TRIES if one.tau is None and one.key in lines}
    for tau, alpha, errors in SETTINGS:
        found = {seed: lines.get(Try(tau, alpha, errors, seed).key) for seed in SEEDS}
        top1 = {seed: line["choose"] for seed, line in found.items() if line}
        more = [value - alone[seed] for seed, value in top1.items() if seed in alone]
        cells = [f"{top1[seed]:.2f}" if seed in top1 else "not measured" for seed in SEEDS]
        told = "labels alone | |" if tau is None else f"{alpha:g} | {tau:g} | {errors}"
        last = "" if tau is None else f"{mean(more):+.2f}" if len(more) == len(SEEDS) else "not measured"
        rows.append(f"| {told} | {' | '.join(cells)} | {last} |")
    return rows


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)
@click.option("--page", is_flag=True, help="Only write the page, from the committed lines.")
def main(work: Path, page: bool) -> None:
    """Carry out what is asked for."""
    work, lines = work.resolve(), Lines(RESULTS)
    arms = Lines(work / "arms.jsonl").read()
    if not page and passed("fashion", arms) is None:
        raise click.UsageError(f"{work} has no teacher of fashion yet; first: run.py --work {work} --go-on.")
    for one in () if page else TRIES:
        with claimed(work, f"softness-{one.key.replace(' ', '-').replace(':', '-')}") as mine:
            if mine and one.key not in lines.read():
                lines.append(train(work, one, arms))
    found = lines.read()
    write_marked(PAGE, "benchmarks/evidence/softness.py", "\n".join(["", *table(found), "", summed_up(found), ""]))
    click.echo(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
