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


def test_the_score_is_scikit_learns_of_all_images_and_of_resampled_ones_ties_included():
    wanted = 100 * average_precision_score(LABELS[:, :4], GOOD[:, :4])
    assert mean_average_precision(GOOD, LABELS) == pytest.approx(wanted)
    points, low, high, sure = gain("multilabel", GOOD, BAD, LABELS)
    drawn = [np.repeat(np.arange(N), row.astype(int)) for row in resampled(N)]
    kept = [np.flatnonzero(LABELS[at].any(axis=0)) for at in drawn]
    by_hand = [
        100 * np.subtract(*(average_precision_score(LABELS[at][:, k], own[at][:, k]) for own in (GOOD, BAD)))
        for at, k in zip(drawn, kept, strict=True)
    ]
    assert (points, low, high) == pytest.approx((by_hand[0], *np.percentile(by_hand[1:], [2.5, 97.5])), abs=1e-3)
    assert sure
    assert gain("multilabel", BAD, BAD, LABELS) == (0.0, 0.0, 0.0, False)


def test_thresholds_have_the_highest_f1_and_lie_between_probabilities():
    found, shares = best_thresholds(GOOD, LABELS), 1 / (1 + np.exp(-GOOD.astype(float)))
    assert found[4] == 0.5, "no image has the class"
    for k in range(4):
        best = max(f1_score(LABELS[:, k], shares[:, k] >= cut) for cut in np.unique(shares[:, k]))
        assert f1_score(LABELS[:, k], shares[:, k] > found[k]) == pytest.approx(best)
        assert np.abs(shares[:, k] - found[k]).min() > 1e-3, "rounding in another runtime decides alike"


def test_f1_is_scikit_learns_at_thresholds_that_other_images_chose_and_int8_is_judged_by_the_bundles():
    models = named("teacher", "torch"), named("plain", "torch"), named("plain", "onnx", "int8")
    outputs = GOOD, BAD, BAD - np.float32(0.5)  # decides less often by the same thresholds
    asked = HeldOut((), LABELS, "d", tuple(label_answers(own, LABELS) for own in outputs), outputs)
    held_out = settled(models, asked, "multilabel")
    found = judged(models, held_out, K, "multilabel")
    fold = np.random.default_rng(0).permutation(N) % 5
    rows = {(row.metric, row.model, row.precision): row for row in found["metrics"]}
    for reference, own, key in ((GOOD, GOOD, ("teacher", "fp32")), (BAD, outputs[2], ("plain", "int8"))):
        decided = np.zeros((N, K), bool)
        for part in (fold == number for number in range(5)):
            thresholds = np.array(best_thresholds(reference[~part], LABELS[~part]))
            decided[part] = 1 / (1 + np.exp(-own[part].astype(float))) > thresholds
        for metric, classes in (("micro", K), ("macro", 4)):
            wanted = 100 * f1_score(LABELS[:, :classes], decided[:, :classes], average=metric, zero_division=0)
            assert rows[(f"{metric}_f1", *key)].value == pytest.approx(wanted)
    teacher, student, reduced = found["accuracy"]
    assert student.top1 == reduced.top1 == pytest.approx(mean_average_precision(BAD, LABELS)), "the same ranking"
    assert (teacher.drop, student.drop) == (None, pytest.approx(teacher.top1 - student.top1))
    assert student.drop_low > 0
    one, other = (1 / (1 + np.exp(-own.astype(float))) > np.array(held_out.thresholds["plain"]) for own in outputs[1:])
    assert reduced.agreement == pytest.approx(100 * (one == other).all(axis=1).mean())


def test_an_image_without_numbers_has_no_answer_and_ranks_last():
    broken = GOOD.copy()
    broken[7] = np.nan
    answers, whole = label_answers(broken, LABELS), label_answers(GOOD, LABELS)
    assert (answers.answer[7], bool(answers.right[7]), answers.confidence[7]) == (-1, False, 0.0)
    assert answers.agrees(whole).sum() == N - 1
    assert whole.answer[8] == tuple(np.flatnonzero(GOOD[8] > 0))
    low = np.where(np.isnan(broken), -99, broken)
    assert mean_average_precision(broken, LABELS) == mean_average_precision(low, LABELS)
