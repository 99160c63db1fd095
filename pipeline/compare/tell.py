"""A comparison for a terminal of 80 columns, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitcompress.pipeline.compare.pareto import WORDS, Standing
from vitcompress.pipeline.compare.read import Comparison, Run
from vitcompress.pipeline.report.models import MEGABYTE
from vitcompress.pipeline.report.wording import Footnotes, code, interval, millions, milliseconds, number, plain
from vitcompress.pipeline.report.wording import table as markdown_table

SCHEMA_VERSION = 1


def terminal(comparison: Comparison, standings: Sequence[Standing]) -> RenderableType:
    """What each number stands for, a row a run, and who is worth having; text is never read as rich markup."""
    notes = Footnotes()
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for title in ("#", "top-1 % [95 %]", "drop", "speed-up [95 %]", "ms b1", "params", "MB"):
        grid.add_column(title, justify="left" if title == "#" else "right", no_wrap=True)
    for run in comparison.runs:
        best = any(one.optimal and one.run == run for one in standings)
        cells = [str(run.number), *_cells(run, notes, top1=".1f")]
        grid.add_row(*map(Text, cells), style="bold" if best else "")
    named = [Text(f"{run.number}  {run.verdict}  {run.name}: {_what(run)}") for run in comparison.runs]
    warnings = [Text(f"Note: {line}") for line in comparison.warnings]
    said = [Text(line) for line in (*notes.lines(), *conclusions(comparison, standings))]
    return Group(*named, grid, *warnings, *said)


def _what(run: Run) -> str:
    return f"{run.student} from {run.teacher}, {run.strategy}; deployed {run.artifact}"


def _cells(run: Run, notes: Footnotes, top1: str = ".2f") -> list[str]:
    """top-1, drop, speed-up, latency, parameters and size."""
    times = ".2f" if (run.speedup["value"] or 0) < 10 else ".1f"
    return [
        number(run.top1, ".2f", notes) + interval(run.top1, top1),
        number(run.drop, ".2f", notes),
        number(run.speedup, times, notes) + interval(run.speedup, times),
        number(run.p50_ms, ".0f", notes) if (run.p50_ms["value"] or 0) >= 1000 else milliseconds(run.p50_ms, notes),
        millions(run.parameters, "no cost is recorded", notes),
        notes.mark("no size is recorded") if run.bytes is None else _megabytes(run.bytes),
    ]


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.{1 if size >= 100 * MEGABYTE else 2}f}"


def conclusions(comparison: Comparison, standings: Sequence[Standing]) -> list[str]:
    """Who is Pareto-optimal, and of every other run why not; what each run's teacher was worth, where that is known."""
    taught = [f"{run.number}: {run.worth}." for run in comparison.runs if run.worth]
    if not standings:
        return [f"Which run is best cannot be said: {comparison.undecided}.", *taught]
    assert comparison.time is not None  # noqa: S101 - else nothing has a standing
    measure = WORDS[comparison.time]
    optimal = [str(one.run.number) for one in standings if one.optimal]
    lines = [f"Pareto-optimal (top-1 against {measure}): {', '.join(optimal) or 'none'}."]
    for one in standings:
        if one.unplaced:
            lines.append(f"{one.run.number} has no place: {one.unplaced}.")
        elif one.by:
            lines.append(_dominated(one, comparison, measure))
    return lines + taught


def _dominated(one: Standing, comparison: Comparison, measure: str) -> str:
    best = next(run for run in comparison.runs if run.number == one.by[0])
    by = " and ".join(map(str, one.by))
    accuracy = f"top-1 {one.run.top1['value']:.2f} against {best.top1['value']:.2f} %"
    times = f"{measure} {_time(one.run, comparison)} against {_time(best, comparison)}"
    unsure = ""
    if one.overlapping:
        unsure = f"; the 95 % intervals of {' and '.join(one.overlapping)} overlap, so this is not certain"
    return f"{one.run.number} is dominated by {by} ({accuracy}, {times}){unsure}."


def _time(run: Run, comparison: Comparison) -> str:
    if comparison.time == "speedup":
        return f"{run.speedup['value']:.2f}x"
    return f"{milliseconds(run.p50_ms, Footnotes())} ms"


def markdown(comparison: Comparison, standings: Sequence[Standing]) -> str:
    """The comparison as GitHub-flavoured Markdown, beside ``pareto.png``."""
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
    """The comparison as JSON values."""
    placed = {one.run.number: one for one in standings}
    runs = []
    for run in comparison.runs:
        stands = placed.get(run.number)
        standing = {
            "pareto_optimal": stands.optimal if stands and not stands.unplaced else None,
            "dominated_by": list(stands.by) if stands else [],
            "overlapping": list(stands.overlapping) if stands else [],
            "reason": stands.unplaced if stands else comparison.undecided,
        }
        runs.append({**asdict(run), **standing})
    return {
        "kind": "compress-comparison",
        "schema_version": SCHEMA_VERSION,
        "time": comparison.time,
        "warnings": list(comparison.warnings),
        "conclusions": conclusions(comparison, standings),
        "runs": runs,
    }
