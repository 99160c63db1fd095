"""A comparison for a terminal, as Markdown, as JSON, and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.core.files import write_atomic, writing
from vitcompress.pipeline.compare.read import Comparison, Run, Standing, standings
from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.models import MEGABYTE
from vitcompress.pipeline.report.table import Column, Output, Table
from vitcompress.pipeline.report.wording import Footnotes, plain, short_count, significant

SCHEMA_VERSION = 2
_BOTH = Output.TERMINAL | Output.MARKDOWN


def _what(run: Run) -> str:
    return f"{run.student} from {run.teacher}, {run.strategy}; deployed {run.artifact}"


def _alone(name: str) -> Any:
    """Return a column's value that is a quantity of the run without its interval, for which there is no room."""
    return lambda run: {**getattr(run, name), "low": None, "high": None}


_COLUMNS = (
    Column("#", attrgetter("number"), "d", shown=_BOTH),
    Column("run", lambda run: f"`{run.name}`: {_what(run)}", shown=Output.MARKDOWN),
    Column("top-1 [95 %]", attrgetter("top1"), ".2f", "%", shown=_BOTH, short="top-1 % [95 %]"),
    Column("drop", _alone("drop"), ".2f", "points", shown=_BOTH, short="drop"),
    Column("speed-up [95 %]", attrgetter("speedup"), significant, shown=_BOTH),
    Column("p50, batch 1", _alone("p50_ms"), significant, "ms", shown=_BOTH, short="ms b1"),
    Column("parameters", attrgetter("parameters"), short_count, shown=_BOTH, short="params", absent="-"),
    Column("size", lambda run: run.bytes and run.bytes / MEGABYTE, significant, "MB", _BOTH, short="MB", absent="-"),
    Column("verdict", attrgetter("verdict"), shown=Output.MARKDOWN),
)


def _table(standings: Sequence[Standing]) -> Table:
    optimal = {one.run.number for one in standings if one.optimal}
    score = standings[0].run.score
    columns = [
        replace(one, name=one.name.replace("top-1", score), short=one.short.replace("top-1", score)) for one in _COLUMNS
    ]
    return Table("", columns, [one.run for one in standings], lambda run: run.number in optimal)


def terminal(comparison: Comparison, standings: Sequence[Standing]) -> RenderableType:
    """Return what each number stands for, a row a run, and who is worth having; text is never read as rich markup."""
    notes = Footnotes()
    grid = tables.terminal(_table(standings), notes, intervals=True)
    named = [f"{run.number}  {run.verdict}  {run.name}: {_what(run)}" for run in comparison.runs]
    warnings = [f"Note: {line}" for line in comparison.warnings]
    below = [*warnings, *notes.lines(), *conclusions(comparison, standings)]
    return Group(*map(Text, named), grid, *map(Text, below))


def conclusions(comparison: Comparison, standings: Sequence[Standing]) -> list[str]:
    """Tell who is Pareto-optimal, and of every other run why not."""
    if comparison.undecided:
        return [f"Which run is best cannot be said: {comparison.undecided}."]
    optimal = [str(one.run.number) for one in standings if one.optimal]
    lines = [f"Pareto-optimal ({comparison.runs[0].score} against latency): {', '.join(optimal) or 'none'}."]
    for one in standings:
        if one.unplaced:
            lines.append(f"{one.run.number} has no place: {one.unplaced}.")
        elif one.by:
            unsure = f"; the 95 % intervals of {' and '.join(one.overlapping)} overlap, so this is not certain"
            by = " and ".join(map(str, one.by))
            lines.append(f"{one.run.number} is dominated by {by}{unsure if one.overlapping else ''}.")
    return lines


def markdown(comparison: Comparison, standings: Sequence[Standing]) -> str:
    """Return the comparison as GitHub-flavoured Markdown, beside ``pareto.png``."""
    lines = [f"## {len(standings)} runs compared", "", tables.markdown(_table(standings)), ""]
    lines += [f"- {plain(line)}" for line in comparison.warnings]
    lines += ["", *(f"{plain(line)}\n" for line in conclusions(comparison, standings))]
    return "\n".join([*lines, f"![{comparison.runs[0].score} against latency, with 95 % intervals](pareto.png)", ""])


def document(comparison: Comparison, standings: Sequence[Standing]) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    runs = [
        asdict(one.run)
        | {
            "pareto_optimal": None if one.unplaced else one.optimal,
            "dominated_by": list(one.by),
            "overlapping": list(one.overlapping),
            "reason": one.unplaced,
        }
        for one in standings
    ]
    return {
        "kind": "compress-comparison",
        "schema_version": SCHEMA_VERSION,
        "warnings": list(comparison.warnings),
        "conclusions": conclusions(comparison, standings),
        "runs": runs,
    }


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``compare.md``, ``compare.json`` and the plot as PNG and SVG; a UsageError is raised where that fails."""
    from vitcompress.pipeline.compare.plot import pareto_figure  # matplotlib takes long to import
    from vitcompress.stages.analysis.figures.draw import file_bytes

    found = standings(comparison)
    files: dict[str, str | bytes] = {
        "compare.md": markdown(comparison, found),
        "compare.json": json.dumps(document(comparison, found), indent=2, allow_nan=False) + "\n",
        **{f"pareto.{kind}": content for kind, content in file_bytes(pareto_figure(found)).items()},
    }
    with writing(f"output '{folder}'"):
        for name, content in files.items():
            write_atomic(folder / name, content)
    return [folder / name for name in files]
