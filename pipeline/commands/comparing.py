"""`compress compare` and `compress compare-targets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitcompress.core.errors import EXIT_GATE_FAILED, EXIT_OK
from vitcompress.core.terminal import console
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, type=FOLDER)
@click.option("-o", "--output", type=FOLDER, help="Also write compare.md, compare.json and a plot to this folder.")
@json_option
def compare(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> int:
    """Deployed models of several runs side by side: accuracy, speed, size, and which are Pareto-optimal."""
    from vitcompress.pipeline.compare import read, tell

    comparison = read.compared(runs)
    written = [] if output is None else tell.write(comparison, output)
    found = read.standings(comparison)
    if as_json:
        return put("compare", tell.document(comparison, found) | {"written": written})
    console().print(tell.terminal(comparison, found))
    for path in written:
        click.echo(f"wrote    {path}")
    return EXIT_OK


@click.command("compare-targets")
@click.argument("run_directory", metavar="RUN|report.json", type=FOLDER)
@click.option("--max-ms", type=float, help="Longest median latency, ms.")
@click.option("--max-mb", type=float, help="Largest model on disk, MB; its runtime does not count.")
@click.option("--max-package-mb", type=float, help="Largest model and runtime together, MB.")
@click.option("--max-memory-mb", type=float, help="Largest peak memory, MB.")
@click.option("--max-cold-start-ms", type=float, help="Longest import, load and first image, ms.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images a call.")
@click.option("--machine", metavar="NAME", help="Another machine that measured the bundle.  [default: the run's own]")
@json_option
def compare_targets(run_directory: Path, as_json: bool, **given: Any) -> int:
    """Artifacts of a RUN side by side: which fit a budget, which are Pareto-best, and which one to deploy."""
    from vitcompress.pipeline.compare import targets, tell_targets

    found = targets.compare_targets(run_directory, **given)
    code = EXIT_OK if found["chosen"] else EXIT_GATE_FAILED
    if as_json:
        return put("compare-targets", found, code)
    console().print(tell_targets.terminal(found))
    return code
