from __future__ import annotations

import numpy as np
import pytest

from stages.training.evaluate import correct, top1


def test_top1_and_top5_of_known_logits() -> None:
    logits = np.array([[0, 1, 2, 3, 4, 5, 6.0]] * 3, dtype=np.float32)
    labels = np.array([6, 2, 0])
    assert top1(logits, labels) == pytest.approx(100 / 3)
    assert correct(logits, labels, k=5).tolist() == [True, True, False]


def test_top1_agrees_with_argmax_ties_included() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 4, (500, 6)).astype(np.float32), rng.integers(0, 6, 500)
    np.testing.assert_array_equal(correct(logits, labels), logits.argmax(1) == labels)


def test_nan_counts_as_wrong_wherever_it_is() -> None:
    logits = np.array([[2.0, 1.0], [2.0, np.nan], [np.nan, 1.0], [np.nan, np.nan]])
    assert correct(logits, np.zeros(4, int)).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(np.zeros((2, 3)), np.zeros(3, int)), (np.zeros((0, 3)), np.zeros(0, int)), (np.zeros((1, 3)), np.array([3]))],
)
def test_what_does_not_fit_is_refused(logits, labels) -> None:
    with pytest.raises(ValueError, match="labels"):
        top1(logits, labels)
