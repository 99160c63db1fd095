"""Several labels an image: mean average precision, thresholds and F1 against scikit-learn, and what is told of them."""

import numpy as np
import pytest
from crafted_answers import named
from sklearn.metrics import average_precision_score, f1_score

from vitcompress.stages.judging.answers import HeldOut
from vitcompress.stages.judging.label_metrics import best_thresholds, label_answers, mean_average_precision
from vitcompress.stages.judging.metrics import resampled
from vitcompress.stages.judging.tasks import gain, judged, settled

N, K = 300, 5
GENERATOR = np.random.default_rng(3)
LABELS = (GENERATOR.random((N, K)) < [0.5, 0.3, 0.1, 0.02, 0.0]).astype(np.float32)
GOOD, BAD = ((GENERATOR.normal(size=(N, K)) + 2 * share * LABELS).round(1).astype(np.float32) for share in (1, 0.3))
"""Rounded: many scores are equal. Of the last class there is no image."""


def decided(outputs, thresholds):
    return 1 / (1 + np.exp(-outputs.astype(float))) > np.array(thresholds)


def test_the_score_is_scikit_learns_of_all_images_and_of_resampled_ones_ties_included(monkeypatch):
    monkeypatch.setattr("vitcompress.stages.judging.metrics.RESAMPLINGS", 50)
    by_hand = []
    for row in resampled(N).astype(int):
        at, some = np.repeat(np.arange(N), row), LABELS[row > 0].any(axis=0)
        scores = [average_precision_score(LABELS[at][:, some], own[at][:, some]) for own in (GOOD, BAD)]
        by_hand.append(100 * (scores[0] - scores[1]))
    wanted = [by_hand[0], *np.percentile(by_hand[1:], [2.5, 97.5]), True]
    assert gain("multilabel", GOOD, BAD, LABELS) == pytest.approx(wanted, abs=1e-3)
    assert gain("multilabel", BAD, BAD, LABELS) == (0.0, 0.0, 0.0, False)


def test_thresholds_have_the_highest_f1_and_lie_between_probabilities():
    found = best_thresholds(GOOD, LABELS)
    for own, shares, threshold in zip(LABELS.T, (1 / (1 + np.exp(-GOOD.astype(float)))).T, found, strict=True):
        best = max(f1_score(own, shares >= cut, zero_division=0) for cut in np.unique(shares))
        assert f1_score(own, shares > threshold, zero_division=0) == pytest.approx(best)
        assert threshold == 0.5 or np.abs(shares - threshold).min() > 1e-3, "another runtime decides alike"


def test_f1_is_of_thresholds_that_other_images_and_the_network_in_torch_chose():
    models = named("teacher", "torch"), named("plain", "torch"), named("plain", "onnx", "int8")
    outputs = GOOD.copy(), BAD, BAD - np.float32(0.5)  # decides less often by the same thresholds
    outputs[0][7] = np.nan  # no answer, and last in every ranking
    asked = HeldOut((), LABELS, "d", tuple(label_answers(own, LABELS) for own in outputs), outputs)
    held_out = settled(models, asked, "multilabel")
    found = judged(models, held_out, K, "multilabel")
    own = np.zeros((N, K), bool)
    for part in (np.random.default_rng(0).permutation(N) % 5 == number for number in range(5)):
        own[part] = decided(outputs[2][part], best_thresholds(BAD[~part], LABELS[~part]))
    values = {row.metric: row.value for row in found["metrics"] if row.precision == "int8"}
    assert values["micro_f1"] == pytest.approx(100 * f1_score(LABELS, own, average="micro", zero_division=0))
    assert values["macro_f1"] == pytest.approx(100 * f1_score(LABELS[:, :4], own[:, :4], average="macro"))
    teacher, student, reduced = found["accuracy"]
    assert student.top1 == reduced.top1 == pytest.approx(mean_average_precision(BAD, LABELS)), "the same ranking"
    assert student.top1 - student.top1_low > student.top1_high - student.top1, "images drawn twice rank higher"
    assert (teacher.drop, student.drop) == (None, pytest.approx(teacher.top1 - student.top1))
    one, other = (decided(each, held_out.thresholds["plain"]) for each in outputs[1:])
    assert reduced.agreement == pytest.approx(100 * (one == other).all(axis=1).mean())
    answers = held_out.answers[0]
    assert (answers.answer[7], bool(answers.right[7]), answers.agrees(answers).sum()) == (-1, False, N - 1)
    assert teacher.top1 == pytest.approx(mean_average_precision(np.where(np.isnan(outputs[0]), -99, GOOD), LABELS))
