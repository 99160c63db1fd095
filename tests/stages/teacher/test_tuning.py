from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.stages.images.sources import ListedSplit
from vitcompress.stages.images.sources.digits import digit_image
from vitcompress.stages.teacher.tuning import FEWEST, held_out_count, hold_out, labels_of


def test_a_tenth_of_each_class_and_one_at_least() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 20, 7, 4])
    held = hold_out(labels, 0.1, 0)
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 2, 1, 0]
    assert held.tolist() == sorted(set(held.tolist()))


def test_it_is_the_seeds_and_the_labels_alone() -> None:
    labels = np.arange(200) % 4
    assert hold_out(labels, 0.1, 3).tolist() == hold_out(labels, 0.1, 3).tolist()
    assert hold_out(labels, 0.1, 3).tolist() != hold_out(labels, 0.1, 4).tolist()


def test_nothing_is_held_out_of_very_few() -> None:
    labels = np.repeat(np.arange(10), FEWEST - 1)
    assert hold_out(labels, 0.1, 0).size == 0
    assert held_out_count(len(labels), 10, 0.1) == 0


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6), st.sampled_from([0.05, 0.1, 0.3, 0.5]))
def test_every_class_keeps_at_least_half(counts: list[int], fraction: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    held = np.bincount(labels[hold_out(labels, fraction, 0)], minlength=len(counts))
    assert all(part <= (count + 1) // 2 for part, count in zip(held.tolist(), counts, strict=True))


@pytest.mark.parametrize("images", [80, 500])
def test_the_count_before_labels_are_known(images: int) -> None:
    labels = np.arange(images) % 10
    assert held_out_count(images, 10, 0.1) == len(hold_out(labels, 0.1, 0))


def test_labels_are_read_from_the_listing_without_opening_an_image() -> None:
    items = [("a", 1), ("b", 0), ("c", 1)]

    def opened(key: str) -> None:
        raise AssertionError(key)

    assert labels_of(ListedSplit(items, opened)).tolist() == [1, 0, 1]  # type: ignore[arg-type]
    image = digit_image(np.zeros((8, 8)))
    assert labels_of([(image, label) for _, label in items]).tolist() == [1, 0, 1]
