"""Loss terms before and after balancing: each one's share and gradient, and what the student makes of it.

    python benchmarks/loss_balance.py                                      # the embedded digits, 3 minutes a student
    python benchmarks/loss_balance.py --data DIR --teacher NAME --teacher-weights FILE --student NAME --set KEY=VALUE

Every student is a run directory made by the project's own stages up to `fold`, all of a seed after one teacher; the
same command goes on after a kill. They differ in `distill.balance` and the strategy alone. Printed are the shares of
the loss over the first and the last epoch, the norms of the gradients at the first batch of both, and top-1.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from strategies import LAST, base_config, run_all, tasks_of
from strategies_table import Method

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import write_atomic
from vitcompress.core.records import DistillRecord
from vitcompress.core.rundir import RunDirectory, utc_now
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.machine import environment
from vitcompress.pipeline.report.wording import table

BALANCES = ("fixed", "gradients")


@dataclass(frozen=True)
class Row:
    """One student's terms; each dict is by name of the term."""

    strategy: str
    balance: str
    seed: int
    top1: float
    """Of the weights that a run would keep, percent of the held-out images."""
    first_shares: dict[str, float]
    last_shares: dict[str, float]
    first_norms: dict[str, float]
    last_norms: dict[str, float]
    scales: dict[str, float]
    seconds: float


def methods_of(strategies: Sequence[str], features: Sequence[dict[str, Any]] = LAST) -> list[Method]:
    """A method a strategy and balance; its name is ``STRATEGY-BALANCE``."""
    return [
        Method(
            f"{strategy}-{balance}",
            f"{strategy}, {balance}",
            {"student": {"strategy": strategy}, "distill": {"features": list(features), "balance": balance}},
        )
        for strategy in strategies
        for balance in BALANCES
    ]


def measure(base: RunConfig, methods: Sequence[Method], seeds: int, output: Path, command: str) -> list[Row]:
    """Train what is not trained yet, and read the terms from the records.

    Args:
        base: what all students share.
        methods: of ``methods_of``.
        seeds: how many, from ``base.seed`` on; each has a teacher of its own.
        output: where the run directories are.
        command: written into them, as what makes them again.

    Raises:
        CompressError: whatever the stages raise.
    """
    rows = []
    for task, (numbers, _) in run_all(tasks_of(base, methods, seeds, output, command, quiet=False), jobs=1):
        if task.method is None:
            continue
        record = RunDirectory.existing(task.folder).load_record("distill", DistillRecord)
        strategy, _, balance = task.method.partition("-")
        rows.append(
            Row(
                strategy=strategy,
                balance=balance,
                seed=numbers["seed"],
                top1=max(record.val_top1_raw, record.val_top1_ema or 0.0),
                first_shares=record.first_shares,
                last_shares=record.shares,
                first_norms=record.first_gradient_norms,
                last_norms=record.gradient_norms,
                scales=record.scales,
                seconds=record.seconds,
            )
        )
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """One line a student and term."""
    body = [
        [
            *((row.strategy, row.balance, str(row.seed), f"{row.top1:.2f}") if first else ("", "", "", "")),
            term,
            f"{100 * row.first_shares[term]:.1f} -> {100 * row.last_shares[term]:.1f}",
            f"{row.first_norms[term]:.3g} -> {row.last_norms[term]:.3g}",
            f"{row.scales[term]:.3g}" if term in row.scales else "",
        ]
        for row in rows
        for first, term in _marked(list(row.last_shares))
    ]
    return table(["strategy", "balance", "seed", "top-1, %", "term", "share, %", "gradient norm", "factor"], body)


def _marked(terms: list[str]) -> list[tuple[bool, str]]:
    """Each term, and whether it is the first."""
    return [(index == 0, term) for index, term in enumerate(terms)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", metavar="SOURCE", help="As for `compress run`.  [default: digits, embedded]")
@click.option("--teacher", metavar="NAME", default="cait_s24", show_default=True)
@click.option("--student", metavar="NAME", default="deit_tiny", show_default=True)
@click.option("--teacher-weights", metavar="FILE", help="Teacher checkpoint; else it is trained or fetched, per seed.")
@click.option("--config", "layers", multiple=True, metavar="FILE|NAME", help="Config file or recipe; repeatable.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting that all students share.")
@click.option("--epochs", type=click.IntRange(min=1), help="distill.epochs.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--strategies", default="plain,lift", show_default=True, metavar="A,B")
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/loss_balance"), show_default=True)
def main(sets: tuple[str, ...], seeds: int, strategies: str, output: Path, **shared: Any) -> None:
    """Compare fixed and balanced loss terms; the same command goes on where it was stopped."""
    command = shlex.join(["python", "benchmarks/loss_balance.py", *sys.argv[1:]])
    try:
        if any(setting.startswith("distill.balance=") for setting in sets):
            raise UsageError("--set distill.balance is what the students differ in; leave it out.")
        rows = measure(base_config(sets, **shared), methods_of(strategies.split(",")), seeds, output, command)
    except CompressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from the last checkpoint.", err=True)
        sys.exit(130)
    machine = environment()
    document = {"command": command, "when": utc_now(), "machine": machine, "rows": [vars(row) for row in rows]}
    write_atomic(output / "results.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    page = f"{markdown(rows)}\n\nMachine: {', '.join(f'{key} {value}' for key, value in machine.items())}.\n"
    write_atomic(output / "results.md", f"`{command}`, {document['when']}\n\n{page}")
    click.echo(page)


if __name__ == "__main__":
    main()
