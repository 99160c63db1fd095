"""How the renderings of a report write numbers and text, and what they write where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitcompress.pipeline.report.models import MEGABYTE


class Footnotes:
    """Reasons for missing numbers: a letter in the table, the words below it, each reason once."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def mark(self, reason: str) -> str:
        """Return the mark to put in the cell, such as ``(a)``: a letter, so that nobody takes it for a number."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return f"({_letters(self._reasons.index(reason))})"

    def lines(self) -> list[str]:
        """Return ``(a) unmeasured: why`` for each mark given so far."""
        return [f"({_letters(index)}) unmeasured: {reason}" for index, reason in enumerate(self._reasons)]


def _letters(index: int) -> str:
    """Return a .. z, aa, ab, ..."""
    head, tail = divmod(index, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)


def significant(value: float) -> str:
    """Return three significant digits, trailing zeros kept: ``0.0497``, ``0.230``, ``107``, ``1,240``."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def interval(given: Mapping[str, Any], form: str) -> str:
    """Return `` [low, high]`` with a leading space; empty when the quantity has none."""
    return "" if given["low"] is None else f" [{given['low']:{form}}, {given['high']:{form}}]"


def short_count(value: float) -> str:
    """Format parameters or multiply-accumulates, such as 33.5 k, 5.49 M or 1.26 G."""
    return (
        f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"
    )


def megabytes(value: float) -> str:
    """Format a size in bytes as a number of MB (10^6 bytes)."""
    return f"{value / MEGABYTE:.2f}"


def megabytes_of(value: float) -> str:
    """Format a size in bytes with its unit, such as ``22.10 MB``."""
    return f"{megabytes(value)} MB"


def card_state(card: Mapping[str, Any] | None, watts: float | None) -> str:
    """Return what a GPU did while something was timed; ``watts`` is its mean power meanwhile."""
    if card is None:
        return "clocks, throttling and other processes are unknown (NVML is not here)"

    def span(key: str, unit: str) -> str | None:
        low, high = card[key] or (None, None)
        return None if low is None else f"{low} {unit}" if low == high else f"{low} to {high} {unit}"

    told = {
        "SM": span("sm_mhz", "MHz"),
        "memory": span("memory_mhz", "MHz"),
        "chip": span("celsius", "°C"),
        "power": None if watts is None else f"{watts:.0f} W",
        "idle": None if card["idle_watts"] is None else f"{card['idle_watts']:.0f} W",
        "clocks held down by": ", ".join(f"{why} {share:.0%}" for why, share in card["limited"].items()),
    }
    words = ", ".join(f"{what} {found}" for what, found in told.items() if found)
    return f"{words}; {card['disturbed'] or 'not throttled, and no other user was seen'}"


def gate_value(row: Mapping[str, Any]) -> str:
    """Return a gate's measured value with its interval and unit, and another machine than the run's; or ``unmeasured``.

    Four significant digits, so that a value just beyond its limit does not read as equal to it.
    """
    if row["value"] is None:
        return "unmeasured"
    there = f" on {row['machine']}" if row.get("machine") else ""
    return f"{row['value']:.4g}{interval(row, '.4g')} {row['unit']}".rstrip() + there


def gate_limit(row: Mapping[str, Any]) -> str:
    """Return a gate's limit in words, such as ``at most 2 points``."""
    return f"{row['relation']} {row['limit']:g} {row['unit']}".rstrip()


def gate_said(row: Mapping[str, Any]) -> str:
    """Return what was measured, or why nothing was, and the limit: ``1.23 [0.33, 2.13] points; limit at most ...``."""
    found = row["why"].rstrip(".") if row["value"] is None else gate_value(row)
    return f"{found}; limit {gate_limit(row)}"


def spoken(given: Mapping[str, Any], form: str, unit: str) -> str:
    """Return a quantity for a sentence: ``1.20 points [0.40, 2.00]`` or ``unmeasured (why)``."""
    if given["value"] is None:
        return f"unmeasured ({given['reason']})"
    return f"{given['value']:{form}}{unit}{interval(given, form)}"


def opened(sentence: str) -> str:
    """Return a sentence with its first letter large; a name such as mAP stays."""
    return sentence if sentence[1:2].isupper() else sentence[:1].upper() + sentence[1:]


def stopped(text: str) -> str:
    """Return a sentence with one full stop at its end."""
    return f"{text.rstrip().rstrip('.')}."


def plain(value: Any) -> str:
    """Return text that cannot break out of its Markdown cell or line, nor bring HTML."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def code(value: Any) -> str:
    """Return text from outside as code, in which Markdown reads nothing, no mention of a person either."""
    return "`" + plain(value).replace("`", "'").replace("&lt;", "<") + "`"


def fact(value: Any) -> str:
    """Return a fact about the machine as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {found}" for name, found in value.items()) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def data_remarks(data: Mapping[str, Any]) -> str:
    """Return what is odd about the images of a report, each remark after ``; ``; empty where nothing is."""
    remarks = []
    if data.get("duplicates"):
        now = f" ({data['dropped']:,} training images left out for it)" if data.get("dropped") else ""
        remarks.append(f"{data['duplicates']:,} held-out images in training too, byte for byte{now}")
    if data.get("contradictory"):
        remarks.append(f"{data['contradictory']:,} training images with a copy in another class")
    if data.get("left_out"):
        remarks.append(f"{data['left_out']:,} images that cannot be used left out")
    return "".join(f"; {remark}" for remark in remarks)
