from __future__ import annotations

import numpy as np
import pytest
from crafted_answers import held_out, named, said

from vitcompress.stages.judging.flips import SHOWN, flip_tables

TEACHER, PLAIN, ONNX = named("teacher", "torch"), named("plain", "torch"), named("plain", "onnx")


def pictured(positions):
    return {position: f"{position}.png" for position in positions}, ""


def table_of(labels, teacher, student, picture=pictured):
    (table,) = flip_tables([TEACHER, PLAIN], held_out(labels, teacher, student), "plain", picture)
    return table


def test_lost_won_and_other_are_told_apart() -> None:
    labels = [0, 0, 0, 0, 0, 0, 0]
    teacher = said(labels, [0, 0, 1, 1, 1, 0, 1], [0.6, 0.6, 0.2, 0.6, 0.6, 0.6, 0.9])
    student = said(labels, [0, 2, 0, 2, 1, 1, 0], [0.9, 0.5, 0.9, 0.8, 0.4, 0.6, 0.1])
    table = table_of(labels, teacher, student)
    assert (table.model, table.runtime, table.precision) == ("plain", "torch", "fp32")
    assert (table.lost, table.won, table.other, table.note) == (2, 2, 1, "")
    # Lost ones by the artifact's confidence in its wrong answer, won ones by the teacher's, then both wrong.
    assert [flip.thumbnail for flip in table.shown] == [f"{position}.png" for position in (5, 1, 6, 2, 3)]
    first = table.shown[0]
    assert (first.image, first.label, first.teacher, first.student) == ("image 5", 0, 0, 1)
    assert (first.teacher_confidence, first.student_confidence) == (0.6, 0.6)


def test_only_the_deployed_graph_that_could_be_run_has_a_table() -> None:
    labels = [0, 1]
    right = said(labels, labels)
    models = [TEACHER, named("lift-kept", "torch"), PLAIN, ONNX, named("teacher", "onnx"), named("plain", "tensorrt")]
    tables = flip_tables(models, held_out(labels, right, right, right, right, right, None), "plain", pictured)
    assert [(table.model, table.runtime) for table in tables] == [("plain", "torch"), ("plain", "onnx")]
    assert all(table.lost == table.won == table.other == 0 and table.shown == () for table in tables)


def test_an_image_without_an_answer_is_lost_and_not_shown() -> None:
    labels = [0, 0, 0]
    table = table_of(labels, said(labels, [0, 0, 1]), said(labels, [-1, 1, -1], [0.0, 0.4, 0.0]))
    assert (table.lost, table.won, table.other) == (2, 0, 1)
    assert [flip.image for flip in table.shown] == ["image 1"]
    assert table.note == "2 images have no answer (NaN) and are not shown"


def test_a_table_shows_the_most_confident_wrong_answers() -> None:
    labels = [0] * 2 * SHOWN
    confidence = np.random.default_rng(0).random(len(labels))
    table = table_of(labels, said(labels, labels), said(labels, [1] * len(labels), confidence))
    assert (table.lost, len(table.shown)) == (len(labels), SHOWN)
    assert [flip.student_confidence for flip in table.shown] == sorted(confidence, reverse=True)[:SHOWN]


@pytest.mark.parametrize(("files", "note"), [({}, "a stream"), ({1: "1.png"}, "")])
def test_why_a_picture_is_missing_is_said_where_one_is(files: dict[int, str], note: str) -> None:
    labels = [0, 0]
    table = table_of(labels, said(labels, [0, 0]), said(labels, [0, 1]), lambda positions: (files, "a stream"))
    assert (table.shown[0].thumbnail, table.note) == (files.get(1, ""), note)
