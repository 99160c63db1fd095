from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.stages.analysis.rules import compared_layers, intensity_pairs


@pytest.mark.parametrize(
    ("student", "theirs", "count"), [(12, 24, 8), (2, 4, 1), (1, 1, 1), (12, 3, 3), (24, 12, 12), (3, 24, 2)]
)
def test_two_thirds_of_the_students_layers_are_compared(student: int, theirs: int, count: int) -> None:
    assert compared_layers(student, theirs) == count


def test_the_published_pairs() -> None:
    pairs = intensity_pairs((0, 1, 18, 19, 20, 21, 22, 23), 12, 24)
    assert pairs == tuple(zip((0, 1, 6, 7, 8, 9, 10, 11), (0, 1, 18, 19, 20, 21, 22, 23), strict=True))


@pytest.mark.parametrize(
    ("strongest", "pairs"),
    [((0,), ((1, 0),)), ((1,), ((1, 1),)), ((2,), ((1, 2),))],
)
def test_one_layer_of_few(strongest: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    """A teacher of one layer, a middle one, a last one: with the student's last; see below for a first one."""
    assert intensity_pairs(strongest, 2, strongest[0] + 1 if strongest != (1,) else 3) == pairs


def test_a_layer_of_the_first_half_goes_with_the_students_first() -> None:
    assert intensity_pairs((0,), 2, 3) == ((0, 0),)
    assert intensity_pairs((11, 12), 12, 24) == ((0, 11), (11, 12))


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_pairs_are_distinct_ordered_and_in_range(student: int, theirs: int, random: object) -> None:
    count = compared_layers(student, theirs)
    strongest = tuple(sorted(random.sample(range(theirs), count)))  # type: ignore[attr-defined]
    pairs = intensity_pairs(strongest, student, theirs)
    ours = [layer for layer, _ in pairs]
    assert tuple(layer for _, layer in pairs) == strongest
    assert len(set(ours)) == count
    assert ours == sorted(ours)
    assert set(ours) <= set(range(student))
