from __future__ import annotations

import numpy as np
import pytest
from crafted_answers import held_out, named, said

from vitcompress.core.bits import unpacked
from vitcompress.stages.judging.accuracy import paired_drop, share_interval
from vitcompress.stages.judging.accuracy_rows import accuracy_rows

LABELS = [0, 0, 1, 1, 2, 2]
TEACHER = said(LABELS, [0, 0, 1, 1, 2, 0], 0.9)
STUDENT = said(LABELS, [0, 1, 1, 1, 0, 0], 0.8)
ARTIFACT = said(LABELS, [0, 1, 1, 0, 0, -1], 0.7)
MODELS = (
    named("teacher", "torch"),
    named("plain", "torch"),
    named("teacher", "onnx", provider="CPUExecutionProvider"),
    named("plain", "onnx", "int8"),
    named("plain", "tensorrt", reason="no GPU"),
)


@pytest.fixture(scope="module")
def rows():
    return accuracy_rows(MODELS, held_out(LABELS, TEACHER, STUDENT, TEACHER, ARTIFACT, None), 7)


def test_drop_is_paired_with_the_teacher_in_torch_and_agreement_with_the_same_graph(rows) -> None:
    assert rows[0].drop is rows[0].agreement is rows[1].agreement is None
    assert (rows[1].drop, rows[1].drop_low, rows[1].drop_high) == paired_drop(TEACHER.right, STUDENT.right)
    assert (rows[2].drop, rows[3].drop) == (0.0, pytest.approx(50.0))
    same = np.array([True, True, True, False, True, False])  # an image without an answer agrees with nothing
    assert (rows[3].agreement, rows[3].agreement_low, rows[3].agreement_high) == share_interval(same)


def test_classes_and_images_are_counted_and_kept(rows) -> None:
    assert {row.images for row in rows} == {6}
    assert rows[1].class_right == (1, 2, 0, 0, 0, 0, 0)
    np.testing.assert_array_equal(unpacked(rows[1].right, 6), STUDENT.right)
    assert rows[1].ece == pytest.approx(100 * (0.8 - 0.5))
    assert rows[0].top1 == rows[0].top5 == pytest.approx(100 * 5 / 6)
    (few,) = accuracy_rows(MODELS[:1], held_out(LABELS, TEACHER), 5)
    assert few.top5 is None  # of five classes, every one is among the five


def test_what_cannot_run_has_its_reason_and_no_number(rows) -> None:
    row = rows[4]
    assert (row.model, row.runtime, row.reason) == ("plain", "tensorrt", "no GPU")
    assert {row.top1, row.top5, row.drop, row.agreement, row.ece} == {None}
    assert (row.class_right, row.right) == ((), "")
