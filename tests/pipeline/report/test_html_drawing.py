"""Axes and names of the page's drawings."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.html.labels import Box, place, spread
from pipeline.report.html.svg import Canvas, Scale, from_zero, padded

AREA = Box(0, 0, 900, 440)
POINTS = st.lists(
    st.tuples(st.floats(10, 890, allow_nan=False), st.floats(10, 430, allow_nan=False)), min_size=1, max_size=8
)


@given(POINTS)
def test_names_do_not_cover_each_other_and_stay_inside(points: list[tuple[float, float]]) -> None:
    marks = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    placed = place([(f"lift-folded {index}", point) for index, point in enumerate(points)], marks, [], AREA, size=13)
    assert [one.anchor for one in placed] == points
    for index, one in enumerate(placed):
        assert one.box.outside(AREA) == 0
        assert all(one.box.overlap(other.box) == 0 for other in placed[index + 1 :])


def test_points_on_one_spot_are_all_named_apart() -> None:
    placed = place([(f"artifact {index}", (450.0, 220.0)) for index in range(8)], [], [], AREA, size=13)
    boxes = [one.box for one in placed]
    assert all(a.overlap(b) == 0 for index, a in enumerate(boxes) for b in boxes[index + 1 :])
    assert any(one.far for one in placed)


def test_a_name_keeps_off_a_bar_where_there_is_room_beside_it() -> None:
    bar = Box(470, 0, 474, 440)
    (one,) = place([("artifact", (450.0, 220.0))], [], [bar], AREA, size=13)
    assert one.box.overlap(bar) == 0
    assert one.box.right < 450


@given(st.lists(st.floats(0, 100), max_size=8), st.floats(1, 10))
def test_spread_keeps_order_distance_and_bounds(wanted: list[float], distance: float) -> None:
    found = spread(wanted, distance, 0, 100)
    assert len(found) == len(wanted)
    assert all(-1e-9 <= one <= 100 + 1e-9 for one in found)
    inside = sorted(found)
    assert all(after - before >= distance - 1e-9 for before, after in pairwise(inside))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    assert order == sorted(range(len(wanted)), key=lambda index: found[index])


def test_spread_without_room_sets_evenly() -> None:
    assert spread([5.0, 5.0, 5.0], 10, 0, 10) == [0, 5, 10]


@given(
    st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=6),
    st.booleans(),
)
def test_a_scale_shows_all_its_values_and_at_least_two_ticks(values: list[float], log: bool) -> None:
    scale = padded(values, 0, 400, log=log)
    assert all(0 <= scale(value) <= 400 for value in values)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 14
    assert ticks == sorted(ticks)
    assert all(0 <= scale(tick) <= 400 + 1e-6 for tick in ticks)


def test_scales_map_as_they_say() -> None:
    assert Scale(1, 100, 0, 200, log=True)(10) == pytest.approx(100)
    assert from_zero([5.0], 300, 0)(0) == 300
    assert padded([3.0], 0, 10)(3.0) == pytest.approx(5)


def test_drawings_are_escaped_and_labelled() -> None:
    canvas = Canvas(100, 50, 'a "label" <b>')
    canvas.text((1, 2), "</text><script>", "name")
    canvas.dot((1, 2), 3, "mark", "tip <i>")
    root = ElementTree.fromstring(canvas.markup())  # noqa: S314 - made here
    assert root.get("aria-label") == 'a "label" <b>'
    assert root.find("text").text == "</text><script>"
    assert root.find("circle/title").text == "tip <i>"
