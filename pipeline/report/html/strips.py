"""The drawing of latencies as they were distributed: a strip for each artifact, over its own median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vitcompress.pipeline.report.html.svg import Canvas, Scale, padded, shortened
from vitcompress.pipeline.report.wording import significant

WIDTH = 400
_LEFT, _RIGHT = 12, WIDTH - 12
_ROW = 48
_MARGIN = 34
"""Beside the axis, for the numbers of what lies beyond it."""
_QUIET = 2.0
"""Largest over smallest time, up to which the axis is linear and holds them all."""
_SHORTEST, _LONGEST = 3.0, 5.0
"""An axis that does not hold all times ends between these multiples of the median: farther out, a box of some
percent would be a line."""


@dataclass(frozen=True)
class Strip:
    """One artifact's times, in ms; the look is a style class."""

    name: str
    look: str
    median: float
    low: float
    high: float
    """Ends of the thin line."""
    box: tuple[float, float] | None
    sessions: Sequence[float]
    """Median of each session."""

    def over(self, value: float) -> float:
        """A time as a multiple of the median."""
        return value / self.median


def draw(strips: Sequence[Strip], label: str) -> Markup:
    """The drawing, with ``label`` for those who cannot see it."""
    scale = _scale(strips)
    bottom = 8 + _ROW * len(strips)
    canvas = Canvas(WIDTH, bottom + 46, label)
    _axis(canvas, scale, bottom)
    for index, strip in enumerate(strips):
        _strip(canvas, strip, scale, 8 + index * _ROW)
    return canvas.markup()


def is_cut(strips: Sequence[Strip]) -> bool:
    """Whether something lies beyond the axis."""
    scale, reach = _scale(strips), _reach(strips)
    return min(reach) < scale.low or max(reach) > scale.high


def _reach(strips: Sequence[Strip]) -> list[float]:
    return [strip.over(value) for strip in strips for value in (strip.low, strip.median, strip.high, *strip.sessions)]


def _scale(strips: Sequence[Strip]) -> Scale:
    """An axis on which boxes stay readable.

    Logarithmic where times differ much; on a busy machine some take twenty times the median, and what is far beyond
    the boxes is then left to a number at the axis's end.
    """
    reach = _reach(strips)
    low, high = min(reach), max(reach)
    if high / low <= _QUIET:
        return padded(reach, _LEFT, _RIGHT, share=0.06)
    boxes = [strip.over(end) for strip in strips for end in strip.box or ()]
    last = min(high, max(_SHORTEST, min(_LONGEST, max(boxes, default=1.0))))
    first = max(low, 1 / max(_SHORTEST, min(_LONGEST, 1 / min(boxes, default=1.0))))
    left = _LEFT + _MARGIN * (first > low)
    right = _RIGHT - _MARGIN * (last < high)
    scale = padded([first, last], left, right, log=True, share=0.04)
    # Without room at an end beyond which something lies: the arrow stands there.
    return Scale(
        first if first > low else scale.low, last if last < high else scale.high, scale.start, scale.end, log=True
    )


def _axis(canvas: Canvas, scale: Scale, bottom: float) -> None:
    for tick in scale.ticks(5):
        canvas.line((scale(tick), 4), (scale(tick), bottom), "grid")
        canvas.text((scale(tick), bottom + 18), f"{tick:g}", "tick", "middle")
    canvas.line((scale.start, bottom), (scale.end, bottom), "axis")
    title = "time over the artifact's own median" + (" (logarithmic)" if scale.log else "")
    canvas.text((WIDTH / 2, bottom + 38), title, "title", "middle")


def _strip(canvas: Canvas, strip: Strip, scale: Scale, top: float) -> None:
    """One artifact: its name and median above, its times over that median below."""
    middle, look = top + 26, strip.look
    median = f"{significant(strip.median)} ms"
    canvas.text((_LEFT, top + 12), shortened(strip.name, 36), f"name {look}")
    canvas.text((_RIGHT, top + 12), median, "value", "end")
    low, high = (_clipped(strip.over(end), scale) for end in (strip.low, strip.high))
    canvas.line((scale(low), middle), (scale(high), middle), f"bar {look}")
    if strip.box:
        left, right = (scale(_clipped(strip.over(end), scale)) for end in strip.box)
        canvas.box(left, middle - 5, right - left, 10, f"box {look}", f"{strip.name}: median {median}")
    at = scale(1.0)
    canvas.line((at, middle - 8), (at, middle + 8), f"median {look}")
    _beyond(canvas, [strip.over(strip.low), strip.over(strip.high)], scale, middle, look)
    below = middle + 14
    for index, session in enumerate(strip.sessions):
        if scale.low <= strip.over(session) <= scale.high:
            tip = f"session {index + 1}: {significant(session)} ms"
            canvas.dot((scale(strip.over(session)), below), 2.5, f"session {look}", tip)
    _beyond(canvas, [strip.over(session) for session in strip.sessions], scale, below, look)


def _beyond(canvas: Canvas, reach: Sequence[float], scale: Scale, y: float, look: str) -> None:
    """An arrow at each end of the axis beyond which something lies, and how far it goes."""
    if max(reach, default=1.0) > scale.high:
        canvas.arrow((scale.end + 5, y), 4, f"session {look}")
        canvas.text((scale.end + 8, y + 4), f"{max(reach):.2g}×", "tick")
    if min(reach, default=1.0) < scale.low:
        canvas.arrow((scale.start - 5, y), -4, f"session {look}")
        canvas.text((scale.start - 8, y + 4), f"{min(reach):.2g}×", "tick", "end")


def _clipped(value: float, scale: Scale) -> float:
    return min(max(value, scale.low), scale.high)
