"""Axes and names of the page's drawings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.pipeline.report.html.labels import Box, place, spread
from vitcompress.pipeline.report.html.strips import WIDTH, Strip, draw, is_cut
from vitcompress.pipeline.report.html.svg import Canvas, Scale, from_zero, padded
from vitcompress.pipeline.report.wording import significant

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


def strip(name: str, high: float, *, box: tuple[float, float] = (1.94, 2.08), sessions: Sequence[float] = ()) -> Strip:
    """Times about a median of 2 ms."""
    return Strip(name, "other", 2.0, 1.9, high, box, sessions)


def drawn(strips: list[Strip]) -> ElementTree.Element:
    return ElementTree.fromstring(draw(strips, "strips"))  # noqa: S314 - made here


def test_quiet_times_are_drawn_whole() -> None:
    quiet = [strip("one", 2.3), strip("two", 2.2, sessions=[1.95, 2.1])]
    root = drawn(quiet)
    assert not is_cut(quiet)
    assert root.findall("polygon") == []
    assert len(root.findall("circle")) == 2
    assert "logarithmic" not in "".join(root.itertext())
    assert all(float(box.get("width", 0)) > 50 for box in root.findall("rect"))


def test_boxes_stay_readable_where_some_times_are_twenty_times_the_median() -> None:
    noisy = [strip("one", 40.0), strip("two", 2.2, sessions=[0.01, 2.0, 2.1, 24.0]), strip("three", 3.0)]
    root = drawn(noisy)
    assert is_cut(noisy)
    assert all(float(box.get("width", 0)) > 8 for box in root.findall("rect"))
    texts = [text.text for text in root.findall("text")]
    assert [text for text in texts if "×" in str(text)] == ["20×", "12×", "0.005×"]
    assert len(root.findall("polygon")) == 3
    assert len(root.findall("circle")) == 2
    for shape, sides in (("line", ("x1", "x2")), ("circle", ("cx",)), ("rect", ("x",))):
        assert all(0 <= float(found.get(side, -1)) <= WIDTH for found in root.findall(shape) for side in sides)


@given(
    st.lists(
        st.tuples(
            *[st.floats(0.01, 1.0)] * 2, *[st.floats(1.0, 100.0)] * 2, st.lists(st.floats(0.01, 100), max_size=3)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_nothing_of_a_strip_lies_beyond_its_drawing(
    shapes: list[tuple[float, float, float, float, list[float]]],
) -> None:
    strips = []
    for a, b, c, d, sessions in shapes:
        low, first, last, high = sorted((a, b, c, d))
        strips.append(Strip("name", "other", 1.0, low, high, (first, last), sessions))
    root = drawn(strips)
    for shape, sides in (("line", ("x1", "x2")), ("circle", ("cx",)), ("rect", ("x",))):
        assert all(0 <= float(one.get(side, -1)) <= WIDTH for one in root.findall(shape) for side in sides)
    assert all(float(one.get("x", 0)) + float(one.get("width", 0)) <= WIDTH for one in root.findall("rect"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.049683, "0.0497"),
        (0.2299, "0.230"),
        (9.999, "10.0"),
        (107.4, "107"),
        (999.6, "1,000"),
        (1240.2, "1,240"),
        (0.0, "0.00"),
    ],
)
def test_three_significant_digits(value: float, words: str) -> None:
    assert significant(value) == words


def test_drawings_are_escaped_and_labelled() -> None:
    canvas = Canvas(100, 50, 'a "label" <b>')
    canvas.text((1, 2), "</text><script>", "name")
    canvas.dot((1, 2), 3, "mark", "tip <i>")
    root = ElementTree.fromstring(canvas.markup())  # noqa: S314 - made here
    assert root.get("aria-label") == 'a "label" <b>'
    assert root.find("text").text == "</text><script>"
    assert root.find("circle/title").text == "tip <i>"
