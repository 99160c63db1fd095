"""Metrics beside top-1: values, intervals and losses against the teacher."""

import numpy as np
import pytest
from crafted_answers import held_out, named, said

from vitcompress.stages.judging.class_metrics import CLASS_RECALL, MACRO_ACCURACY, confusions
from vitcompress.stages.judging.metrics import mean_of, metric_rows, resampled

MODELS = named("teacher", "torch"), named("plain", "torch")
LABELS = np.array([0] * 80 + [1] * 16 + [2] * 4)
TEACHER = LABELS.copy()
STUDENT = np.where(np.arange(100) % 4 == 3, 0, LABELS)
"""All of class 0 right, three quarters of the others."""


def test_macro_accuracy_weighs_classes_alike_and_the_weakest_is_told():
    rows = metric_rows(
        MODELS, held_out(LABELS, said(LABELS, TEACHER), said(LABELS, STUDENT)), 3, [MACRO_ACCURACY, CLASS_RECALL]
    )
    teacher, student, weakest_of_teacher, weakest = rows
    assert (teacher.value, teacher.drop) == (100.0, None)
    assert student.value == pytest.approx(100 * (1 + 0.75 + 0.75) / 3)
    assert student.drop == pytest.approx(100 - student.value)
    assert student.value_low < student.value < student.value_high
    assert student.drop_low > 0, "a quarter of two classes is no chance"
    assert (weakest_of_teacher.value, weakest.value) == (100.0, 75.0)


def test_resampling_is_paired_and_repeatable():
    counts = resampled(50)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 50).all()
    assert np.array_equal(counts, resampled(50))
    found = mean_of(np.arange(50) < 25)(counts)
    assert found[0] == 50.0
    assert found[1:].std() == pytest.approx(100 * np.sqrt(0.25 / 50), rel=0.1)


def test_the_weakest_of_many_classes_is_not_taken_for_worse_than_it_is():
    labels = np.arange(50).repeat(30)
    right = np.random.default_rng(0).random(1500) < 0.8
    given = said(labels, labels), said(labels, np.where(right, labels, 0))
    weakest = metric_rows(MODELS, held_out(labels, *given), 50, [CLASS_RECALL])[1]
    assert weakest.value_low < weakest.value < 75 < 80 < weakest.value_high


def test_which_classes_are_taken_for_which_is_counted_without_the_right_and_the_missing_answers():
    labels = np.array([0, 0, 0, 1, 2, 2])
    models = named("teacher", "torch"), named("teacher", "onnx"), named("plain", "onnx", "int8"), named("x", "onnx")
    answers = said(labels, labels), said(labels, labels), said(labels, [1, 0, 1, 2, 0, -1]), None
    teacher, student = confusions(models, held_out(labels, *answers))
    assert (teacher.model, teacher.runtime, teacher.cells) == ("teacher", "torch", ())
    assert (student.precision, student.cells) == ("int8", ((0, 1, 2), (1, 2, 1), (2, 0, 1)))
