"""The comparison of first weights: its rows and its table, on networks that train in a second."""

from __future__ import annotations

from pathlib import Path

from small_run import STUDENT, STUDENT_ARGS, TEACHER, TEACHER_ARGS, seeded_model

from benchmarks.student_init import load_pixels, rows, table
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import preprocess_of


def test_every_way_is_a_row_of_the_table(digits_folder: Path) -> None:
    spec = ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=10)
    teacher = seeded_model(spec, 7)
    data = load_pixels(str(digits_folder), preprocess_of(teacher, spec.args, 1.0), 64, 30)
    assert (data.train.shape, data.val.shape) == ((64, 32, 32, 3), (30, 32, 32, 3))
    student = ModelSpec(arch=STUDENT, args=STUDENT_ARGS, num_classes=10)
    found = rows(
        teacher,
        data,
        student,
        str(digits_folder),
        ways=("random", "teacher"),
        epochs=1,
        calibration=16,
        rates=(1e-3, 1e-4),
    )
    assert [(row.way, row.lr) for row in found] == [(way, lr) for way in ("random", "teacher") for lr in (1e-3, 1e-4)]
    assert all(0 <= value <= 100 for row in found for value in (row.before, *row.top1))
    assert found[0].before == found[1].before  # the rate does not change the first weights
    lines = table(found).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| random | 0.001 | ")
    assert "PCA directions, 24 of 48" in lines[4]
