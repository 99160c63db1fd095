"""The rules: pairs of layers; the table as docs/advice.md shows it, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.stages.analysis.rules import RULES, compared_layers, intensity_pairs
from vitcompress.stages.analysis.statistics import MIN_IMAGES, RESAMPLES

PAGE = (Path(__file__).parents[3] / "docs" / "advice.md").read_text()


@pytest.mark.parametrize(("student", "theirs", "count"), [(12, 24, 8), (1, 1, 1), (12, 3, 3), (3, 24, 2)])
def test_two_thirds_of_the_students_layers_are_compared(student: int, theirs: int, count: int) -> None:
    assert compared_layers(student, theirs) == count


def test_a_layer_of_the_first_half_goes_with_the_students_first_others_with_its_last() -> None:
    assert intensity_pairs((0,), 2, 3) == ((0, 0),)
    assert intensity_pairs((11, 12), 12, 24) == ((0, 11), (11, 12))
    for layer, depth in ((0, 1), (1, 3), (2, 3)):  # an only layer, a middle one, a last one
        assert intensity_pairs((layer,), 2, depth) == ((1, layer),)


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_pairs_are_distinct_ordered_and_in_range(student: int, theirs: int, random: object) -> None:
    count = compared_layers(student, theirs)
    strongest = tuple(sorted(random.sample(range(theirs), count)))  # type: ignore[attr-defined]
    pairs = intensity_pairs(strongest, student, theirs)
    ours = [layer for layer, _ in pairs]
    assert tuple(layer for _, layer in pairs) == strongest
    assert ours == sorted(set(ours))
    assert set(ours) <= set(range(student))


def test_the_page_has_every_rule_in_its_order_and_the_numbers() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    shown = [(row[0], row[3]) for row in rows if row[0] in {"strategy", "pairs", "width"}]
    papers = {"[EM] arXiv 2511.15572": "EM", "[SKD] arXiv 2412.19055": "SKD"}
    expected = []
    for rule in RULES:
        paper, _, part = rule.source.partition(": ")
        expected.append((rule.what, f"{papers[paper]}: {part}"))
    assert shown == expected
    assert f"of {RESAMPLES} bootstrap draws" in PAGE
    assert f"With fewer than {MIN_IMAGES} images nothing is recommended" in PAGE
