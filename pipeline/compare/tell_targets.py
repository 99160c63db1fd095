"""The artifacts of a run against a budget, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.deploy_table import whole_megabytes
from vitcompress.pipeline.report.report_tables import at
from vitcompress.pipeline.report.table import Cell, Column, Output, Table, Value
from vitcompress.pipeline.report.wording import Footnotes, megabytes, significant


def _number(heading: str, key: str, form: Callable[[float], str]) -> Column:
    return Column(heading, at(key), form, shown=Output.TERMINAL)


def _stacked(heading: str, key: str, form: Callable[[float], str]) -> Column:
    """Return a column with the interval below the number, so that the table keeps within 80 columns."""

    def value(row: Mapping[str, Any]) -> Value:
        one = row[key]
        interval = "" if one["low"] is None else f"\n{form(one['low'])}-{form(one['high'])}"
        return Cell(f"{form(one['value'])}{interval}")

    return Column(heading, value, form, shown=Output.TERMINAL)


def terminal(found: Mapping[str, Any]) -> RenderableType:
    """Return a row for each measured artifact, the reasons of the others, and the choice."""

    def name(row: Mapping[str, Any]) -> str:
        marks = f"{'>' if row['artifact'] == found['chosen'] else ' '}{'*' if row['pareto'] else ' '}"
        return f"{marks} {row['target']}\n   {row['precision']}"

    columns = (
        Column("artifact", name, shown=Output.TERMINAL),
        _stacked(f"{found['score']} %", "top1", "{:.1f}".format),
        _number("drop", "drop", "{:.2f}".format),
        _stacked(f"ms b{found['batch']}", "ms", significant),
        _number("img/s", "images_per_second", significant),
        _number("file\nMB", "file", megabytes),
        _number("pack.\nMB", "package", whole_megabytes),
        _number("cold\nms", "cold_start", significant),
        _number("mem.\nMB", "memory", whole_megabytes),
    )
    notes = Footnotes()
    grid = tables.terminal(
        Table("", columns, found["artifacts"], lambda row: row["artifact"] == found["chosen"]), notes
    )
    lines = [
        f"> the choice. * no other is as good in {found['score']}, speed and file size.",
        "Below a number its 95 % interval. pack.: runtime and file.",
        *notes.lines(),
        *(f"{one['name']} unmeasured: {one['reason']}" for one in found["unmeasured"]),
        *(f"Also measured on {name}: --machine." for name in found["other_machines"]),
    ]
    return Group(
        Text(f"Measured on {found['machine']}."), grid, *map(Text, lines), Text(found["sentence"], style="bold")
    )
