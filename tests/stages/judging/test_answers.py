from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from vitcompress.stages.judging.answers import NO_ANSWER, Answers

NAN, INF = float("nan"), float("inf")


def test_answer_confidence_and_rank_come_from_the_logits() -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(50, 7)).astype(np.float32)
    labels = np.arange(50) % 7
    answers = Answers.joined([Answers.of(logits[:20], labels[:20]), Answers.of(logits[20:], labels[20:])])
    np.testing.assert_array_equal(answers.answer, logits.argmax(axis=1))
    np.testing.assert_allclose(answers.confidence, scipy.special.softmax(logits.astype(float), axis=1).max(axis=1))
    np.testing.assert_array_equal(answers.right, logits.argmax(axis=1) == labels)
    five = np.argsort(-logits, axis=1)[:, :5]
    np.testing.assert_array_equal(answers.right5, (five == labels[:, None]).any(axis=1))


def test_a_nan_is_no_answer_and_infinite_logits_have_a_confidence() -> None:
    logits = np.array([[9.0, NAN, 0.0], [9.0, 1.0, 0.0], [INF, 0.0, INF], [-INF, -INF, -INF]], dtype=np.float32)
    answers = Answers.of(logits, np.array([0, 0, 0, 0]))
    assert answers.answer.tolist() == [NO_ANSWER, 0, 0, 0]
    assert answers.confidence.tolist() == [0.0, pytest.approx(0.9995, abs=1e-4), 0.5, pytest.approx(1 / 3)]
    assert answers.right.tolist() == answers.right5.tolist() == [False, True, True, True]
    assert answers.agrees(answers).tolist() == [False, True, True, True]
