"""A comparison for a terminal of 80 columns, as Markdown, as JSON, and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitcompress.core.errors import UsageError
from vitcompress.core.files import unwritable, write_atomic
from vitcompress.pipeline.compare.pareto import WORDS, Standing, standings
from vitcompress.pipeline.compare.read import Comparison, Run
from vitcompress.pipeline.report.models import MEGABYTE
from vitcompress.pipeline.report.wording import Footnotes, code, interval, millions, milliseconds, number, plain
from vitcompress.pipeline.report.wording import table as markdown_table

SCHEMA_VERSION = 1


def terminal(comparison: Comparison, standings: Sequence[Standing]) -> RenderableType:
    """Return what each number stands for, a row a run, and who is worth having; text is never read as rich markup."""
    notes = Footnotes()
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for title in ("#", "top-1 % [95 %]", "drop", "speed-up [95 %]", "ms b1", "params", "MB"):
        grid.add_column(title, justify="left" if title == "#" else "right", no_wrap=True)
    optimal = [one.run.number for one in standings if one.optimal]
    for run in comparison.runs:
        cells = [str(run.number), *_cells(run, notes, top1=".1f")]
        grid.add_row(*map(Text, cells), style="bold" if run.number in optimal else "")
    named = [f"{run.number}  {run.verdict}  {run.name}: {_what(run)}" for run in comparison.runs]
    warnings = [f"Note: {line}" for line in comparison.warnings]
    below = [*warnings, *notes.lines(), *conclusions(comparison, standings)]
    return Group(*map(Text, named), grid, *map(Text, below))


def _what(run: Run) -> str:
    return f"{run.student} from {run.teacher}, {run.strategy}; deployed {run.artifact}"


def _cells(run: Run, notes: Footnotes, top1: str = ".2f") -> list[str]:
    """Return top-1, drop, speed-up, latency, parameters and size."""
    times = ".2f" if (run.speedup["value"] or 0) < 10 else ".1f"
    size = None if run.bytes is None else run.bytes / MEGABYTE
    return [
        number(run.top1, ".2f", notes) + interval(run.top1, top1),
        number(run.drop, ".2f", notes),
        number(run.speedup, times, notes) + interval(run.speedup, times),
        number(run.p50_ms, ".0f", notes) if (run.p50_ms["value"] or 0) >= 1000 else milliseconds(run.p50_ms, notes),
        millions(run.parameters, "no cost is recorded", notes),
        notes.mark("no size is recorded") if size is None else f"{size:.{1 if size >= 100 else 2}f}",
    ]


def conclusions(comparison: Comparison, standings: Sequence[Standing]) -> list[str]:
    """Tell who is Pareto-optimal, and of every other run why not; what each run's teacher was worth, where known."""
    taught = [f"{run.number}: {run.worth}." for run in comparison.runs if run.worth]
    if not standings or comparison.time is None:
        return [f"Which run is best cannot be said: {comparison.undecided}.", *taught]
    measure = WORDS[comparison.time]
    optimal = [str(one.run.number) for one in standings if one.optimal]
    lines = [f"Pareto-optimal (top-1 against {measure}): {', '.join(optimal) or 'none'}."]
    for one in standings:
        if one.unplaced:
            lines.append(f"{one.run.number} has no place: {one.unplaced}.")
        elif one.by:
            best = comparison.runs[one.by[0] - 1]
            accuracy = f"top-1 {one.run.top1['value']:.2f} against {best.top1['value']:.2f} %"
            times = f"{measure} {_time(one.run, comparison)} against {_time(best, comparison)}"
            unsure = f"; the 95 % intervals of {' and '.join(one.overlapping)} overlap, so this is not certain"
            by = " and ".join(map(str, one.by))
            end = unsure if one.overlapping else ""
            lines.append(f"{one.run.number} is dominated by {by} ({accuracy}, {times}){end}.")
    return lines + taught


def _time(run: Run, comparison: Comparison) -> str:
    if comparison.time == "speedup":
        return f"{run.speedup['value']:.2f}x"
    return f"{milliseconds(run.p50_ms, Footnotes())} ms"


def markdown(comparison: Comparison, standings: Sequence[Standing]) -> str:
    """Return the comparison as GitHub-flavoured Markdown, beside ``pareto.png``."""
    notes = Footnotes()
    header = ["", "run", "top-1 % [95 %]", "drop, points", "speed-up [95 %]", "p50 ms, batch 1", "parameters", "MB"]
    rows = [
        [str(run.number), f"{code(run.name)}: {plain(_what(run))}", *_cells(run, notes), run.verdict]
        for run in comparison.runs
    ]
    lines = [f"## {len(rows)} runs compared", "", markdown_table([*header, "verdict"], rows), ""]
    lines += [f"- {plain(line)}" for line in (*notes.lines(), *comparison.warnings)]
    lines += ["", *(f"{plain(line)}\n" for line in conclusions(comparison, standings))]
    return "\n".join([*lines, "![top-1 against speed, with 95 % intervals](pareto.png)", ""])


def document(comparison: Comparison, standings: Sequence[Standing]) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    runs = [asdict(run) for run in comparison.runs]
    nothing: dict[str, Any] = {
        "pareto_optimal": None,
        "dominated_by": [],
        "overlapping": [],
        "reason": comparison.undecided,
    }
    for position, run in enumerate(runs):
        run |= nothing
        if standings:
            one = standings[position]
            run["pareto_optimal"] = None if one.unplaced else one.optimal
            run |= {"dominated_by": list(one.by), "overlapping": list(one.overlapping), "reason": one.unplaced}
    return {
        "kind": "compress-comparison",
        "schema_version": SCHEMA_VERSION,
        "time": comparison.time,
        "warnings": list(comparison.warnings),
        "conclusions": conclusions(comparison, standings),
        "runs": runs,
    }


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``compare.md``, ``compare.json`` and the plot as PNG and SVG into ``folder``, over those of an earlier one.

    Raises:
        UsageError: ``folder`` is a file or cannot be written.
    """
    from vitcompress.pipeline.compare.plot import pareto_figure  # matplotlib takes long to import
    from vitcompress.stages.analysis.figures.draw import file_bytes

    found = standings(comparison)
    files: dict[str, str | bytes] = {
        "compare.md": markdown(comparison, found),
        "compare.json": json.dumps(document(comparison, found), indent=2, allow_nan=False) + "\n",
        **{f"pareto.{kind}": content for kind, content in file_bytes(pareto_figure(comparison, found)).items()},
    }
    try:
        for name, content in files.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise UsageError(
            f"output '{folder}' cannot be written ({unwritable(error)}); give a folder you may write to with --output."
        ) from error
    return [folder / name for name in files]
