from __future__ import annotations

import numpy as np
import pytest
from crafted_answers import held_out, named, said

from vitcompress.stages.verify.flips import PICTURES, SHOWN, flip_tables, pictured, with_pictures

TEACHER, PLAIN, ONNX = named("teacher", "torch"), named("plain", "torch"), named("plain", "onnx")


def tables_of(labels, teacher, *students, models=(PLAIN, ONNX)):
    return flip_tables([TEACHER, *models[: len(students)]], held_out(labels, teacher, *students), "plain")


def test_lost_won_and_other_are_told_apart() -> None:
    labels = [0, 0, 0, 0, 0, 0, 0]
    teacher = said(labels, [0, 0, 1, 1, 1, 0, 1], [0.6, 0.6, 0.2, 0.6, 0.6, 0.6, 0.9])
    student = said(labels, [0, 2, 0, 2, 1, 1, 0], [0.9, 0.5, 0.9, 0.8, 0.4, 0.6, 0.1])
    (table,), (shown,) = tables_of(labels, teacher, student)
    assert (table.model, table.runtime, table.precision) == ("plain", "torch", "fp32")
    assert (table.lost, table.won, table.other, table.note) == (2, 2, 1, "")
    # Lost ones by the artifact's confidence in its wrong answer, won ones by the teacher's, then both wrong.
    assert shown == (5, 1, 6, 2, 3)
    first = table.shown[0]
    assert (first.image, first.label, first.teacher, first.student) == ("image 5", 0, 0, 1)
    assert (first.teacher_confidence, first.student_confidence, first.thumbnail) == (0.6, 0.6, "")


def test_only_the_deployed_graph_that_could_be_run_has_a_table() -> None:
    labels = [0, 1]
    right = said(labels, labels)
    models = [TEACHER, named("lift-kept", "torch"), PLAIN, ONNX, named("teacher", "onnx"), named("plain", "tensorrt")]
    tables, shown = flip_tables(models, held_out(labels, right, right, right, right, right, None), "plain")
    assert pictured(shown) == []
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
    models = [named("plain", runtime) for runtime in runtimes]
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
