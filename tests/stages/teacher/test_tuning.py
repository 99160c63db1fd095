from __future__ import annotations

import numpy as np

from vitcompress.stages.images.sources import ListedSplit
from vitcompress.stages.images.sources.digits import digit_image
from vitcompress.stages.teacher.tuning import FEWEST, hold_out, labels_of


def test_a_tenth_of_each_class_and_one_at_least() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 20, 7, 4])
    held = hold_out(labels, 0.1, 0)
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 2, 1, 0]
    assert held.tolist() == sorted(set(held.tolist()))


def test_nothing_is_held_out_of_very_few() -> None:
    labels = np.repeat(np.arange(10), FEWEST - 1)
    assert hold_out(labels, 0.1, 0).size == 0


def test_labels_are_read_from_the_listing_without_opening_an_image() -> None:
    items = [("a", 1), ("b", 0), ("c", 1)]

    def opened(key: str) -> None:
        raise AssertionError(key)

    assert labels_of(ListedSplit(items, opened)).tolist() == [1, 0, 1]  # type: ignore[arg-type]
    image = digit_image(np.zeros((8, 8)))
    assert labels_of([(image, label) for _, label in items]).tolist() == [1, 0, 1]
