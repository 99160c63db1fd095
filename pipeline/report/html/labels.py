"""Names beside the points of a plot, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.html.svg import Point, text_width


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
    def baseline(self) -> Point:
        """Where its text begins."""
        return self.box.left, self.box.bottom - 0.25 * (self.box.bottom - self.box.top)


def place(
    named: Sequence[tuple[str, Point]], taken: Sequence[Box], area: Box, size: float, gap: float = 9.0
) -> list[Placed]:
    """A place for every name, near its point, inside ``area``, off the boxes in ``taken`` and off other names.

    Greedy: names in the order given, for each the first of its places that is free, near ones first; where none is,
    the one that covers least. ``size`` is the font's, in units of the drawing.
    """
    placed: list[Placed] = []
    obstacles = list(taken)
    for text, point in named:
        best: tuple[float, Placed] | None = None
        for candidate in _candidates(text, point, size, gap):
            covered = sum(candidate.box.overlap(other) for other in obstacles)
            crossed = sum(other.box.contains(at) for other in placed for at in candidate.leader()) if placed else 0
            cost = covered + 100 * candidate.box.outside(area) + 20 * crossed
            if best is None or cost < best[0]:
                best = cost, candidate
            if cost == 0:
                break
        assert best is not None  # there are always candidates  # noqa: S101
        placed.append(best[1])
        obstacles.append(best[1].box)
        obstacles += [Box(x - 1, y - 1, x + 1, y + 1) for x, y in best[1].leader()[2:]]
    return placed


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
