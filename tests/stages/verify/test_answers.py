from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from vitcompress.stages.verify.answers import NO_ANSWER, Answers

NAN, INF = float("nan"), float("inf")


def test_answer_confidence_and_rank_come_from_the_logits() -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(50, 7)).astype(np.float32)
    labels = np.arange(50) % 7
    answers = Answers.of(logits, labels)
    np.testing.assert_array_equal(answers.answer, logits.argmax(axis=1))
    np.testing.assert_allclose(answers.confidence, scipy.special.softmax(logits.astype(float), axis=1).max(axis=1))
    np.testing.assert_array_equal(answers.right, logits.argmax(axis=1) == labels)
    five = np.argsort(-logits, axis=1)[:, :5]
    np.testing.assert_array_equal(answers.right5, (five == labels[:, None]).any(axis=1))


def test_a_nan_is_no_answer_whatever_else_the_row_holds() -> None:
    logits = np.array([[NAN, NAN, NAN], [1.0, NAN, 0.0], [9.0, 1.0, 0.0]], dtype=np.float32)
    answers = Answers.of(logits, np.array([0, 0, 0]))
    assert answers.answer.tolist() == [NO_ANSWER, NO_ANSWER, 0]
    assert answers.confidence[:2].tolist() == [0.0, 0.0]
    assert answers.right.tolist() == answers.right5.tolist() == [False, False, True]
    assert answers.agrees(answers).tolist() == [False, False, True]


def test_infinite_logits_have_a_confidence() -> None:
    logits = np.array([[INF, 0.0, 1.0], [INF, 0.0, INF], [-INF, -INF, -INF], [-INF, 3.0, -INF]], dtype=np.float32)
    answers = Answers.of(logits, np.array([0, 2, 0, 1]))
    assert answers.answer.tolist() == [0, 0, 0, 1]
    assert answers.confidence.tolist() == [1.0, 0.5, pytest.approx(1 / 3), 1.0]
    assert answers.right.tolist() == [True, False, True, True]


def test_batches_are_joined_in_order_and_compared_image_by_image() -> None:
    logits, labels = np.random.default_rng(1).normal(size=(9, 4)), np.zeros(9, dtype=int)
    whole = Answers.of(logits, labels)
    joined = Answers.joined([Answers.of(logits[:5], labels[:5]), Answers.of(logits[5:], labels[5:])])
    for name in ("answer", "confidence", "right", "right5"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    other = Answers.of(np.roll(logits, 1, axis=1), labels)
    np.testing.assert_array_equal(whole.agrees(other), whole.answer == other.answer)
