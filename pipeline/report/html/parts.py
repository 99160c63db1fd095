"""What the template puts on the page: tables and figures, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from vitcompress.pipeline.report.wording import Footnotes, interval


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    small: str = ""
    """A second, smaller line, such as an interval."""
    sort: float | None = None
    """What a sortable column goes by; None: the text."""
    kind: str = ""
    """Style class; never the only bearer of a meaning."""


@dataclass(frozen=True)
class Column:
    """A column's head."""

    title: str
    number: bool = False
    """Aligned to the right."""


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is the row's head."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    """Lines below: reasons for what is missing."""
    strong: frozenset[int] = frozenset()
    """Rows that stand out."""
    tall: bool = False
    """Whether it scrolls inside a box of limited height."""


@dataclass(frozen=True)
class Figure:
    """A drawing with words for those who cannot see it."""

    title: str
    drawings: Sequence[Markup]
    """One, or the same for wide pages and for narrow ones."""
    caption: str
    table: Table | None = None
    """Its numbers."""
    notes: Sequence[str] = field(default=())
    """What is not in it, and why."""


def not_drawn(lost: Sequence[tuple[str, str]]) -> list[str]:
    """A sentence for each reason, with all that it keeps out of a figure: ``lost`` holds (what, why)."""
    reasons: dict[str, list[str]] = {}
    for what, why in lost:
        reasons.setdefault(why, []).append(what)
    return [sentence(f"Not drawn: {'; '.join(names)}: {why}") for why, names in reasons.items()]


def sentence(text: str) -> str:
    """With one full stop at its end."""
    return f"{text.rstrip().rstrip('.')}."


def columns(*titles: str, words: Sequence[str] = ()) -> list[Column]:
    """Heads of columns; all but the first and those among ``words`` hold numbers."""
    return [Column(title, number=index > 0 and title not in words) for index, title in enumerate(titles)]


def quantity_cell(given: dict[str, Any], form: str, notes: Footnotes, *, sign: str = "") -> Cell:
    """A quantity of the report with its interval below; a footnote's mark where nothing was measured."""
    if given["value"] is None:
        return Cell(notes.mark(given["reason"]), kind="missing")
    return Cell(format(given["value"], sign + form), small=interval(given, form).strip(), sort=given["value"])


def number_cell(value: float | None, form: str, reason: str, notes: Footnotes) -> Cell:
    """A number, or a footnote's mark."""
    return Cell(notes.mark(reason), kind="missing") if value is None else Cell(format(value, form), sort=value)
