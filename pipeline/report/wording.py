"""How the renderings of a report write numbers, and what they write where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitcompress.pipeline.report.models import MEGABYTE


class Footnotes:
    """Reasons for missing numbers: a letter in the table, the words below it, each reason once."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def mark(self, reason: str) -> str:
        """The mark to put in the cell, such as ``(a)``: a letter, so that nobody takes it for a number."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return f"({_letters(self._reasons.index(reason))})"

    def lines(self) -> list[str]:
        """``(a) unmeasured: why`` for each mark given so far."""
        return [f"({_letters(index)}) unmeasured: {reason}" for index, reason in enumerate(self._reasons)]


def _letters(index: int) -> str:
    """a .. z, aa, ab, ..."""
    head, tail = divmod(index, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)


def number(given: dict[str, Any], form: str, notes: Footnotes) -> str:
    """A quantity's value in the given format, or a footnote's mark."""
    return notes.mark(given["reason"]) if given["value"] is None else format(given["value"], form)


def milliseconds(given: dict[str, Any], notes: Footnotes) -> str:
    """A latency; below 10 ms with a third decimal, for tiny models differ there."""
    return number(given, ".2f" if (given["value"] or 0) >= 10 else ".3f", notes)


def significant(value: float) -> str:
    """Three significant digits, trailing zeros kept: ``0.0497``, ``0.230``, ``107``, ``1,240``."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def interval(given: dict[str, Any], form: str) -> str:
    """`` [low, high]`` with a leading space; empty when the quantity has none."""
    return "" if given["low"] is None else f" [{given['low']:{form}}, {given['high']:{form}}]"


def millions(value: float | None, reason: str, notes: Footnotes) -> str:
    """Parameters or multiply-accumulates, such as 33.5 k, 5.49 M or 1.26 G."""
    if value is None:
        return notes.mark(reason)
    return (
        f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"
    )


def megabytes(value: float | None, reason: str, notes: Footnotes) -> str:
    """A size, such as 22.10 MB (10^6 bytes)."""
    return notes.mark(reason) if value is None else f"{value / MEGABYTE:.2f} MB"


def gate_value(row: dict[str, Any]) -> str:
    """A gate's measured value with its interval and unit, or ``unmeasured``.

    Four significant digits, so that a value just beyond its limit does not read as equal to it.
    """
    if row["value"] is None:
        return "unmeasured"
    return f"{row['value']:.4g}{interval(row, '.4g')} {row['unit']}".rstrip()


def gate_limit(row: dict[str, Any]) -> str:
    """A gate's limit in words, such as ``at most 2 points``."""
    return f"{row['relation']} {row['limit']:g} {row['unit']}".rstrip()


def spoken(given: dict[str, Any], form: str, unit: str) -> str:
    """A quantity in a sentence: ``1.20 points [0.40, 2.00]`` or ``unmeasured (why)``."""
    if given["value"] is None:
        return f"unmeasured ({given['reason']})"
    return f"{given['value']:{form}}{unit}{interval(given, form)}"


def opened(sentence: str) -> str:
    """A sentence with its first letter large."""
    return sentence[:1].upper() + sentence[1:]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(value: Any) -> str:
    """Text that cannot break out of its Markdown cell or line, nor bring HTML."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def code(value: Any) -> str:
    """Text from outside as code, in which Markdown reads nothing, no mention of a person either."""
    return "`" + plain(value).replace("`", "'").replace("&lt;", "<") + "`"


def fact(value: Any) -> str:
    """A fact about the machine as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {found}" for name, found in value.items()) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def data_remarks(data: dict[str, Any]) -> list[str]:
    """What is odd about the images of a report, in words; nothing where nothing is."""
    said = []
    if data.get("duplicates"):
        now = f" ({data['dropped']:,} training images left out for it)" if data.get("dropped") else ""
        said.append(f"{data['duplicates']:,} held-out images in training too, byte for byte{now}")
    if data.get("contradictory"):
        said.append(f"{data['contradictory']:,} training images with a copy in another class")
    if data.get("left_out"):
        said.append(f"{data['left_out']:,} images that cannot be used left out")
    return said
