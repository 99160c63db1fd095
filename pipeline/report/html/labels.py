"""Names beside the points of a plot, so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vitcompress.pipeline.report.html.svg import Point, text_width


@dataclass(frozen=True)
class Box:
    """A rectangle of the drawing, y downward."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def contains(self, point: Point) -> bool:
        """Whether a point lies in it."""
        return self.left <= point[0] <= self.right and self.top <= point[1] <= self.bottom

    def outside(self, other: Box) -> float:
        """How far it sticks out of another, summed over the four sides."""
        sides = (other.left - self.left, self.right - other.right, other.top - self.top, self.bottom - other.bottom)
        return sum(max(side, 0.0) for side in sides)


@dataclass(frozen=True)
class Placed:
    """A name with its place."""

    text: str
    box: Box
    anchor: Point
    """The point that it names."""
    far: bool
    """Whether a line must lead from the point to it."""

    def leader(self) -> list[Point]:
        """Points along the line from the point to the name, its ends included; none where no line is needed."""
        if not self.far:
            return []
        (x, y), box = self.anchor, self.box
        end = min(max(x, box.left), box.right), box.bottom if box.bottom < y else box.top
        return [(x + (end[0] - x) * step / 12, y + (end[1] - y) * step / 12) for step in range(13)]

    @property
    def baseline(self) -> tuple[Point, str]:
        """Where its text stands, and which end of it: the one nearer to the point, for the box is rather too wide."""
        box, x = self.box, self.anchor[0]
        height = box.bottom - 0.25 * (box.bottom - box.top)
        if box.right < x:
            return (box.right, height), "end"
        return ((box.left, height), "start") if box.left > x else (((box.left + box.right) / 2, height), "middle")


def place(
    named: Sequence[tuple[str, Point]],
    marks: Sequence[Box],
    bars: Sequence[Box],
    area: Box,
    size: float,
    gap: float = 9.0,
) -> list[Placed]:
    """A place for every name: near its point, inside ``area``, off marks and other names, if possible off bars.

    Greedy: names in the order given, for each the best place that is left. ``size`` is the font's, in units of the
    drawing; ``gap`` the distance from a point to the name beside it.
    """
    placed: list[Placed] = []
    for text, point in named:
        names = [one.box for one in placed]
        leaders = [Box(x - 1, y - 1, x + 1, y + 1) for one in placed for x, y in one.leader()[2:]]
        best, least = None, math.inf
        for nth, candidate in enumerate(_candidates(text, point, size, gap)):
            cost = nth + _badness(candidate, [*marks, *names], [*bars, *leaders], names, area)
            if cost < least:
                best, least = candidate, cost
        assert best is not None  # there are always candidates  # noqa: S101
        placed.append(best)
    return placed


def _badness(candidate: Placed, solid: Sequence[Box], thin: Sequence[Box], names: Sequence[Box], area: Box) -> float:
    """How bad a place is, in steps away from the point: what covers text or marks is out if anything else is left."""
    covered = sum(candidate.box.overlap(other) for other in solid)
    outside = candidate.box.outside(area)
    crossed = sum(other.contains(at) for other in names for at in candidate.leader())
    lines = sum(candidate.box.overlap(other) > 0 for other in thin)
    return 1000 * (covered > 0) + covered + 1000 * (outside > 0) + 100 * outside + 30 * crossed + 8 * lines


def _candidates(text: str, point: Point, size: float, gap: float) -> list[Placed]:
    """Right, left, above, below and the corners, then ever farther up and down."""
    width, height = text_width(text, size), 1.3 * size
    x, y = point
    found = []
    for step in range(9):
        rise = 0.0 if step == 0 else gap + (step - 1) * height + height / 2
        for shift in (rise, -rise) if rise else (0.0,):
            sides = [x + gap, x - gap - width] + ([x - width / 2] if rise else [])
            for left in sides:
                top = y + shift - height / 2
                found.append(Placed(text, Box(left, top, left + width, top + height), point, far=step > 1))
    return found


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Coordinates near ``wanted``, in the same order of size, at least ``distance`` apart, within [low, high].

    Where there is no room for that they are set evenly.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    if len(wanted) > 1 and distance * (len(wanted) - 1) > high - low:
        distance = (high - low) / (len(wanted) - 1)
    found = [0.0] * len(wanted)
    before = low - distance
    for index in order:
        before = found[index] = max(wanted[index], before + distance)
    after = high + distance
    for index in reversed(order):
        after = found[index] = min(found[index], after - distance)
    return found
