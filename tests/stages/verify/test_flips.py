from __future__ import annotations

import numpy as np
import pytest
from crafted_answers import Named, held_out, said

from vitcompress.stages.verify.flips import PICTURES, SHOWN, flip_tables, pictured, with_pictures

TEACHER, PLAIN, ONNX = Named("teacher", "torch"), Named("plain", "torch"), Named("plain", "onnx")


def tables_of(labels, teacher, *students, models=(PLAIN, ONNX)):
    return flip_tables([TEACHER, *models[: len(students)]], held_out(labels, teacher, *students), "plain")


def test_lost_won_and_other_are_told_apart() -> None:
    labels = [0, 0, 0, 0, 0, 0]
    teacher = said(labels, [0, 0, 1, 1, 1, 0], 0.6)
    student = said(labels, [0, 2, 0, 2, 1, 1], [0.9, 0.5, 0.7, 0.8, 0.4, 0.6])
    (table,), (shown,) = tables_of(labels, teacher, student)
    assert (table.model, table.runtime, table.precision) == ("plain", "torch", "fp32")
    assert (table.lost, table.won, table.other, table.note) == (2, 1, 1, "")
    assert shown == (5, 1, 2, 3)  # lost by confidence of the wrong answer, then won, then both wrong
    first = table.shown[0]
    assert (first.image, first.label, first.teacher, first.student) == ("image 5", 0, 0, 1)
    assert (first.teacher_confidence, first.student_confidence, first.thumbnail) == (0.6, 0.6, "")


def test_a_won_image_is_ranked_by_the_teachers_confidence() -> None:
    labels = [0] * 3
    teacher = said(labels, [1, 1, 1], [0.2, 0.9, 0.5])
    _, (shown,) = tables_of(labels, teacher, said(labels, [0, 0, 0], [0.9, 0.1, 0.5]))
    assert shown == (1, 2, 0)


def test_only_the_deployed_graph_that_could_be_run_has_a_table() -> None:
    labels = [0, 1]
    right = said(labels, labels)
    models = [TEACHER, Named("lift-kept", "torch"), PLAIN, ONNX, Named("teacher", "onnx"), Named("plain", "tensorrt")]
    tables, _ = flip_tables(models, held_out(labels, right, right, right, right, right, None), "plain")
    assert [(table.model, table.runtime) for table in tables] == [("plain", "torch"), ("plain", "onnx")]
    assert all(table.lost == table.won == table.other == 0 and table.shown == () for table in tables)


def test_an_image_without_an_answer_is_lost_and_not_shown() -> None:
    labels = [0, 0, 0]
    (table,), (shown,) = tables_of(labels, said(labels, [0, 0, 1]), said(labels, [-1, 1, -1], [0.0, 0.4, 0.0]))
    assert (table.lost, table.won, table.other) == (2, 0, 1)
    assert shown == (1,)
    assert table.note == "2 images have no answer (NaN) and are not shown"


def test_a_table_shows_so_many_images_and_all_share_so_many_pictures() -> None:
    count = 40 * SHOWN
    labels = [0] * count
    teacher = said(labels, labels)
    random = np.random.default_rng(0)
    runtimes = ("torch", "onnx", "tensorrt", "tensorrt-rtx")
    students = [said(labels, [1] * count, random.random(count)) for _ in runtimes]
    models = [Named("plain", runtime) for runtime in runtimes]
    tables, shown = tables_of(labels, teacher, *students, models=models)
    assert [(table.lost, len(table.shown)) for table in tables] == [(count, SHOWN)] * 4
    positions = pictured(shown)
    assert len(positions) == len(set(positions)) == PICTURES
    assert {one[rank] for one in shown for rank in range(PICTURES // 4)} <= set(positions)  # the first of each table
    finished = with_pictures(tables, shown, {position: f"{position}.png" for position in positions}, "")
    for table, own in zip(finished, shown, strict=True):
        for flip, position in zip(table.shown, own, strict=True):
            assert flip.thumbnail == (f"{position}.png" if position in positions else "")
        lacking = any(not flip.thumbnail for flip in table.shown)
        assert table.note == (f"pictures are of {PICTURES} images at most" if lacking else "")
    assert any(table.note for table in finished)


@pytest.mark.parametrize(("files", "note"), [({}, "a stream"), ({1: "1.png"}, "")])
def test_why_a_picture_is_missing_is_said_where_one_is(files: dict[int, str], note: str) -> None:
    labels = [0, 0]
    tables, shown = tables_of(labels, said(labels, [0, 0]), said(labels, [0, 1]))
    (table,) = with_pictures(tables, shown, files, "a stream")
    assert (table.shown[0].thumbnail, table.note) == (files.get(1, ""), note)


def test_nothing_flipped_needs_no_picture() -> None:
    labels = [0, 1]
    right = said(labels, labels)
    tables, shown = tables_of(labels, right, right, right)
    assert pictured(shown) == []
    assert with_pictures(tables, shown, {}, "") == tuple(tables)
