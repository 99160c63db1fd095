"""Tables: a column is described once, and shown in the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from vitcompress.pipeline.report.models import quantity
from vitcompress.pipeline.report.wording import Footnotes, plain


class Output(Flag):
    """Where a column is shown."""

    TERMINAL = auto()
    MARKDOWN = auto()
    """The open part of the Markdown, and of the page."""
    DETAILS = auto()
    """The folded part of both."""
    DOCUMENTS = MARKDOWN | DETAILS


class Markdown(str):
    """Text that is Markdown already, and is not escaped again."""

    __slots__ = ()


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    interval: str = ""
    """Shown beside the text, below it on the page; in the terminal where ``terminal`` is asked for it."""
    sort: float | None = None
    """What the page sorts its column by; None: the text."""
    style: str = ""
    """Style class on the page; never the only bearer of a meaning."""

    def __str__(self) -> str:
        """Return the text and the interval."""
        return f"{self.text} {self.interval}".rstrip()


Value = str | float | Mapping[str, Any] | Cell | None
"""A cell's content: text, a number, a quantity of the report, a finished cell, or None where there is no number."""


@dataclass(frozen=True)
class Column:
    """What a column shows of a row."""

    name: str
    value: Callable[[Any], Value]
    form: str | Callable[[float], str] = ""
    """How its numbers are formatted; empty for a column of text."""
    unit: str = ""
    shown: Output = Output.DOCUMENTS
    short: str = ""
    """Its heading in the terminal, where that must be shorter."""
    absent: str = ""
    """What stands in place of a number that need not be there; without it a footnote says why there is none."""

    @property
    def is_number(self) -> bool:
        """Whether it is aligned to the right."""
        return bool(self.form)

    def heading(self, output: Output) -> str:
        """Return the name with the unit."""
        if output is Output.TERMINAL and self.short:
            return self.short
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def cell(self, row: Any, notes: Footnotes) -> Cell:
        """Return the cell of a row; where there is no number, a mark of ``notes``."""
        found = self.value(row)
        if found is None and self.absent:
            found = self.absent
        if isinstance(found, (Cell, str)):
            return found if isinstance(found, Cell) else Cell(found)
        given: Mapping[str, Any] = found if isinstance(found, Mapping) else quantity(found)
        if given["value"] is None:
            return Cell(notes.mark(given["reason"]), style="missing")
        low, high = given["low"], given["high"]
        interval = "" if low is None else f"[{self._formatted(low)}, {self._formatted(high)}]"
        return Cell(self._formatted(given["value"]), interval, given["value"])

    def _formatted(self, value: float) -> str:
        return self.form(value) if callable(self.form) else format(value, self.form)


class Shown(NamedTuple):
    """A table as one output shows it."""

    columns: list[Column]
    rows: list[list[Cell]]
    strong: list[bool]
    """Of each row."""
    notes: list[str]
    """Lines below it."""


@dataclass(frozen=True)
class Table:
    """Columns and rows with a caption; the first cell of a row is the row's head."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Any]
    strong: Callable[[Any], bool] = lambda row: False
    """Which rows stand out."""
    lines: Sequence[str] = ()
    """What is said below it, besides why a number is missing."""
    tall: bool = False
    """Whether it scrolls inside a box of limited height on the page."""

    def shown(self, output: Output, notes: Footnotes | None = None) -> Shown:
        """Return the columns of an output, with all cells; reasons go to ``notes``, or to lines of its own."""
        own = notes or Footnotes()
        columns = [column for column in self.columns if output in column.shown]
        rows = [[column.cell(row, own) for column in columns] for row in self.rows]
        lines = [*([] if notes else own.lines()), *self.lines]
        return Shown(columns, rows, [self.strong(row) for row in self.rows], lines)


def markdown(table: Table, output: Output = Output.MARKDOWN) -> Markdown:
    """Return a table in Markdown, with its notes as a list below."""
    shown = table.shown(output)
    rows = [[plain(cell) for cell in row] for row in shown.rows]
    for row, strong in zip(rows, shown.strong, strict=True):
        row[0] = f"**{row[0]}**" if strong and output is Output.MARKDOWN else row[0]
    lines = [[column.heading(output) for column in shown.columns], ["---"] * len(shown.columns), *rows]
    body = ["| " + " | ".join(line) + " |" for line in lines]
    return Markdown("\n".join([*body, "", *(f"- {plain(line)}" for line in shown.notes)]).rstrip())


def terminal(table: Table, notes: Footnotes | None = None, *, intervals: bool = False) -> RichTable:
    """Return a table for a terminal; text is never read as rich markup.

    ``notes`` take the reasons why numbers are missing; without them only their marks are shown.
    """
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    shown = table.shown(Output.TERMINAL, notes or Footnotes())
    for column in shown.columns:
        if column.is_number:
            grid.add_column(column.heading(Output.TERMINAL), justify="right", no_wrap=True)
        else:
            grid.add_column(column.heading(Output.TERMINAL), overflow="fold")
    for row, strong in zip(shown.rows, shown.strong, strict=True):
        cells = (Text(str(cell) if intervals else cell.text) for cell in row)
        grid.add_row(*cells, style="bold" if strong else "")
    return grid
