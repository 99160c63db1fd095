"""Drawings as SVG inside the page: colours are CSS classes, so that light, dark and print look right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

Point = tuple[float, float]
CHARACTER = 0.66
"""Width of an average character in ems, rather too wide than too narrow: the reader's font is not known, and may be
bold."""
SERIES = 6
"""Looks of lines that the style sheet knows (``s0`` to ``s5``); they differ in colour and in dashes."""


def text_width(text: str, size: float) -> float:
    """How wide a text is at most, in units of the drawing, at a font size in the same."""
    return len(text) * size * CHARACTER


def shortened(text: str, length: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


class Canvas:
    """An SVG drawing that grows by shapes; text and attributes are escaped by ElementTree."""

    def __init__(self, width: float, height: float, label: str, kind: str = "") -> None:
        """Begin a drawing.

        Args:
            width: of its coordinate system; the page scales it.
            height: likewise.
            label: what a screen reader says in its place.
            kind: further style classes.
        """
        box = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label}
        self._root = ElementTree.Element("svg", {**box, "class": f"plot {kind}".strip()})

    def _add(self, tag: str, kind: str, tip: str = "", **attributes: float | str) -> ElementTree.Element:
        words = {
            name.replace("_", "-"): value if isinstance(value, str) else f"{value:.2f}"
            for name, value in attributes.items()
        }
        child = ElementTree.SubElement(self._root, tag, {"class": kind, **words})
        if tip:
            ElementTree.SubElement(child, "title").text = tip
        return child

    def line(self, start: Point, end: Point, kind: str) -> None:
        """A straight line."""
        self._add("line", kind, x1=start[0], y1=start[1], x2=end[0], y2=end[1])

    def curve(self, points: Sequence[Point], kind: str, tip: str = "") -> None:
        """Straight lines through points."""
        self._add("polyline", kind, tip, points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points))

    def dot(self, at: Point, radius: float, kind: str, tip: str = "") -> None:
        """A circle; ``tip`` shows under a pointer."""
        self._add("circle", kind, tip, cx=at[0], cy=at[1], r=radius)

    def diamond(self, at: Point, radius: float, kind: str, tip: str = "") -> None:
        """A square on its corner."""
        (x, y), r = at, radius
        self._add("polygon", kind, tip, points=f"{x - r},{y} {x},{y - r} {x + r},{y} {x},{y + r}")

    def arrow(self, tip: Point, length: float, kind: str) -> None:
        """The head of an arrow to the right, or to the left where ``length`` is negative."""
        (x, y), tail = tip, tip[0] - length
        half = abs(length)
        self._add("polygon", kind, points=f"{x:.2f},{y:.2f} {tail:.2f},{y - half:.2f} {tail:.2f},{y + half:.2f}")

    def box(self, left: float, top: float, width: float, height: float, kind: str, tip: str = "") -> None:
        """A rectangle."""
        self._add("rect", kind, tip, x=left, y=top, width=max(width, 0.0), height=height)

    def text(self, at: Point, words: str, kind: str, anchor: str = "start") -> None:
        """Words, with ``at`` on their baseline."""
        self._add("text", kind, x=at[0], y=at[1], text_anchor=anchor).text = words

    def markup(self) -> Markup:
        """The drawing, for the page."""
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))  # noqa: S704 - escaped by ElementTree


@dataclass(frozen=True)
class Scale:
    """Values onto an axis of a drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        part = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start + part * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values on the axis, about ``count`` of them."""
        if self.log:
            decades = math.log10(self.high / self.low)
            subs = (1, 1.5, 2, 3, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 2.5 else (1,)
            found = LogLocator(subs=subs, numticks=12).tick_values(self.low, self.high)
            if sum(self.low <= tick <= self.high for tick in found) < 2:  # a range within one of those steps
                found = MaxNLocator(count).tick_values(self.low, self.high)
        else:
            found = MaxNLocator(count).tick_values(self.low, self.high)
        return [float(tick) for tick in found if self.low <= tick <= self.high]


def padded(values: Sequence[float], start: float, end: float, *, log: bool = False, share: float = 0.08) -> Scale:
    """A scale over values with room at both ends."""
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** share if high > low else 1.5
        return Scale(low / room, high * room, start, end, log=True)
    room = (high - low) * share or abs(high) * share or 1.0
    return Scale(low - room, high + room, start, end)


def from_zero(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale from 0 to a little above the largest value."""
    return Scale(0.0, max(values) * 1.06 or 1.0, start, end)


def is_wide(values: Sequence[float], ratio: float) -> bool:
    """Whether values differ so much that the small ones would be lost on a linear axis."""
    return min(values) > 0 and max(values) / min(values) > ratio
