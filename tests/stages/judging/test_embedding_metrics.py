"""What embeddings are worth, against scikit-learn's words for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crafted_answers import held_out, named
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from vitcompress.stages.judging.answers import NO_ANSWER
from vitcompress.stages.judging.embedding_metrics import mean_cosine, neighbours, unit
from vitcompress.stages.judging.tasks import judged, shown

DIGITS, LABELS = load_digits(return_X_y=True)
OUTPUTS = DIGITS[:300].astype(np.float32) - DIGITS.mean(axis=0).astype(np.float32)
CLASSES = LABELS[:300].copy()
CLASSES[7] = 10  # the only one of its class
MODELS = named("teacher", "torch"), named("plain", "torch"), named("plain", "onnx")


def values(*outputs: np.ndarray, labels: np.ndarray = CLASSES) -> tuple[Any, dict[tuple[str, int], Any]]:
    """The record's fields, and each metric's rows by name and model."""
    found = replace(held_out(labels, *(neighbours(one, labels) for one in outputs)), outputs=outputs)
    models = MODELS[: len(outputs)]
    record = judged(models, found, 11, "embedding")
    at = {(each.model, each.runtime): place for place, each in enumerate(models)}
    return record, {(row.metric, at[row.model, row.runtime]): row for row in record["metrics"]}


def test_neighbours_and_precision_are_those_of_scikit_learn() -> None:
    found, vectors = neighbours(OUTPUTS, CLASSES), unit(OUTPUTS)
    search = NearestNeighbors(n_neighbors=21, metric="cosine").fit(vectors)
    distance, index = search.kneighbors(vectors)
    assert np.array_equal(found.answer, index[:, 1])
    assert found.similarity == pytest.approx(1 - distance[:, 1:], abs=1e-5)
    assert np.array_equal(found.right5, (CLASSES[index[:, 1:6]] == CLASSES[:, None]).any(axis=1))
    for query in range(300):
        others = np.arange(300) != query
        wanted = CLASSES[others] == CLASSES[query]
        if query == 7:
            assert np.isnan(found.precision[query])
            continue
        precision = average_precision_score(wanted, np.rint(1e6 * (vectors @ vectors[query])[others]))
        assert found.precision[query] == pytest.approx(precision, abs=1e-3)


def test_votes_and_probe_are_those_of_scikit_learn() -> None:
    record, rows = values(OUTPUTS, OUTPUTS[:, ::-1])
    vectors = unit(OUTPUTS)
    distance, index = NearestNeighbors(n_neighbors=21, metric="cosine").fit(vectors).kneighbors(vectors)
    votes = np.zeros((300, 11))
    np.add.at(votes, (np.arange(300)[:, None], CLASSES[index[:, 1:]]), np.exp((1 - distance[:, 1:]) / 0.07))
    assert rows["knn_accuracy", 0].value == pytest.approx(100 * (votes.argmax(axis=1) == CLASSES).mean())
    place = np.array([np.count_nonzero(CLASSES[:at] == label) for at, label in enumerate(CLASSES)])
    fitted = place % 2 == 0
    spread = 150 * vectors[fitted].var(axis=0).mean()
    probe = RidgeClassifier(alpha=0.01 * spread).fit(vectors[fitted], CLASSES[fitted])
    wanted = 100 * probe.score(vectors[~fitted], CLASSES[~fitted])
    assert rows["probe_accuracy", 0].value == pytest.approx(wanted, abs=0.7)
    logistic = LogisticRegression(max_iter=1000).fit(8 * vectors[fitted], CLASSES[fitted])
    assert wanted == pytest.approx(100 * logistic.score(8 * vectors[~fitted], CLASSES[~fitted]), abs=4)
    precision = neighbours(OUTPUTS, CLASSES).precision
    assert rows["retrieval_map", 0].value == pytest.approx(100 * np.nanmean(precision))
    assert record["accuracy"][0].top1 == pytest.approx(100 * (CLASSES[index[:, 1]] == CLASSES).mean())
    assert record["accuracy"][0].ece is None


def test_a_student_is_as_good_as_its_teacher_if_it_is_only_turned_and_scaled() -> None:
    turned = OUTPUTS @ np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0].astype(np.float32)
    worse = OUTPUTS.copy()
    worse[:, :32] = 0
    record, rows = values(OUTPUTS, 5 * turned, worse)
    assert rows["retrieval_map", 1].drop == pytest.approx(0, abs=0.01)
    assert rows["teacher_neighbours", 1].value > 99
    assert rows["teacher_cosine", 1].value < 50
    assert rows["retrieval_map", 2].drop_low > 0
    assert record["accuracy"][1].drop == 0 < record["accuracy"][2].drop
    assert mean_cosine(3 * OUTPUTS, OUTPUTS) == pytest.approx(100) == rows["teacher_cosine", 0].value


def test_copies_rank_alike_in_every_runtime_and_what_is_no_number_is_found_by_nobody() -> None:
    outputs = np.concatenate([OUTPUTS[:50], OUTPUTS[:50]])
    labels = np.concatenate([CLASSES[:50], CLASSES[:50]])
    first = neighbours(np.concatenate([outputs, outputs]), np.tile(labels, 2))
    noise = 1 + 1e-7 * np.random.default_rng(1).normal(size=(200, 64)).astype(np.float32)
    assert np.array_equal(
        first.answer, neighbours(np.concatenate([outputs, outputs]) * noise, np.tile(labels, 2)).answer
    )
    outputs[3] = np.nan
    found = neighbours(outputs, labels)
    assert (found.answer[3], found.confidence[3], found.right[3], found.precision[3]) == (NO_ANSWER, 0, False, 0)
    assert found.right[4]
    assert 3 not in found.nearest[np.arange(100) != 3]


def test_without_classes_the_teachers_neighbours_are_what_is_right() -> None:
    labels = np.full(300, -1)
    worse = OUTPUTS + 6 * np.random.default_rng(2).normal(size=OUTPUTS.shape).astype(np.float32)
    record, rows = values(OUTPUTS, worse, labels=labels)
    same = neighbours(OUTPUTS, labels).answer == neighbours(worse, labels).answer
    teacher, student = record["accuracy"]
    assert (teacher.top1, student.top1) == (100.0, pytest.approx(100 * same.mean()))
    assert student.drop == pytest.approx(100 - student.top1)
    assert 0 < student.top1 < 100
    assert {metric for metric, _ in rows} == {"recall_at_5", "teacher_cosine", "teacher_neighbours"}
    in_classes = shown(replace(held_out(labels, neighbours(worse, labels))), "embedding")
    assert (in_classes.answers[0].answer == NO_ANSWER).all()  # type: ignore[union-attr]
