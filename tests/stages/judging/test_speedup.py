from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vitcompress.core.measured_records import LatencyRow, TeacherReference
from vitcompress.stages.judging.speedup import against_deployed, with_speedup

NOISE = np.array([0.99, 1.0, 1.01, 1.02, 0.98])
"""Of five sessions."""


def row(model: str, runtime: str, precision: Any, ms: float | None, reason: str = "", batch: int = 1) -> LatencyRow:
    nothing: dict[str, Any] = dict.fromkeys(("p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"))
    sessions = () if ms is None else tuple((ms * NOISE).tolist())
    place: dict[str, Any] = {"model": model, "runtime": runtime, "precision": precision, "batch": batch}
    return LatencyRow(**place, **nothing, p50_ms=ms, samples=len(sessions), session_p50_ms=sessions, reason=reason)


def of_student(rows: list[LatencyRow]) -> LatencyRow:
    return next(one for one in with_speedup(rows) if one.model == "plain")


@pytest.mark.parametrize(
    ("runtime", "teachers", "against", "speedup"),
    [
        ("onnx", [("fp32", 12.0), ("fp16", 9.0)], "fp16", 3.0),
        ("onnx", [("fp32", 12.0)], "fp32", 4.0),
        ("onnx", [("fp32", 12.0), ("fp16", None)], "fp32", 4.0),
        ("tensorrt", [("fp32", 12.0), ("fp16", 9.0)], "fp16", 3.0),
        ("tensorrt", [("fp32", 12.0)], None, None),
        ("tensorrt", [("fp16", None)], None, None),
    ],
)
def test_a_student_is_compared_with_the_teacher_in_its_precision(
    runtime: str, teachers: list[tuple[str, float | None]], against: str | None, speedup: float | None
) -> None:
    rows = [row("teacher", runtime, precision, ms, "" if ms else "at node 'odd'") for precision, ms in teachers]
    found = of_student([*rows, row("plain", runtime, "fp16", 3.0)])
    assert found.speedup_against == against
    if speedup is None:
        told = ": at node 'odd'" if teachers[0][1] is None else ""
        assert (found.speedup, found.speedup_reason) == (None, f"no teacher was measured in tensorrt fp16{told}")
        return
    # The sessions' noise is common to both, and cancels.
    assert (found.speedup_low, found.speedup, found.speedup_high) == pytest.approx((speedup,) * 3)


def test_what_was_not_measured_keeps_its_own_reason() -> None:
    absent = row("plain", "onnx", "fp32", None, "no GPU")
    assert with_speedup([row("teacher", "onnx", "fp32", 2.0), absent])[1] == absent


TEACHERS = [
    row("teacher", "torch", "fp32", 20.0),
    row("teacher", "torch-compiled", "fp32", 14.0),
    row("teacher", "onnx", "fp32", 12.0),
    row("teacher", "onnx", "fp16", 10.0),
    row("teacher", "tensorrt", "fp16", 8.0),
    row("teacher", "tensorrt", "int8", 9.0),
]
STUDENTS = [row("plain", "tensorrt", "fp16", 2.0), row("plain", "onnx", "fp32", 4.0)]


def references(found: tuple[TeacherReference, ...]) -> dict[int, tuple[str, str] | None]:
    return {one.batch: (one.teacher.runtime, one.teacher.precision) if one.teacher else None for one in found}


@pytest.mark.parametrize(
    ("choice", "chosen", "ms"),
    [
        ("best", ("tensorrt", "fp16"), 8.0),
        ("torch", ("torch", "fp32"), 20.0),
        ("compiled", ("torch-compiled", "fp32"), 14.0),
        ("onnx", ("onnx", "fp16"), 10.0),
        ("engine", ("tensorrt", "fp16"), 8.0),
    ],
)
def test_todays_teacher_is_the_fastest_that_the_setting_allows(choice: Any, chosen: tuple[str, str], ms: float) -> None:
    rows, found = against_deployed([*TEACHERS, *STUDENTS], choice)
    assert references(found) == {1: chosen}
    assert [one.p50_ms for one in found[0].among] == sorted(one.p50_ms for one in found[0].among)
    assert [one.speedup_deployed for one in rows[:6]] == [None] * 6
    assert [one.speedup_deployed for one in rows[6:]] == pytest.approx([ms / 2, ms / 4])


def test_rows_of_the_same_sessions_are_compared_session_by_session_and_others_as_independent() -> None:
    engine, graph = against_deployed([*TEACHERS, *STUDENTS], "best")[0][6:]
    widths = [(one.speedup_deployed_high or 0) / (one.speedup_deployed_low or 1) for one in (engine, graph)]
    assert widths[0] == pytest.approx(1.0)
    assert widths[1] > 1.02


def test_todays_teacher_is_chosen_at_each_batch_size_and_its_absence_told() -> None:
    at_8 = [row("teacher", "torch", "fp32", 50.0, batch=8), row("plain", "onnx", "fp32", 10.0, batch=8)]
    rows, found = against_deployed([*TEACHERS, *STUDENTS, *at_8], "best")
    assert references(found) == {1: ("tensorrt", "fp16"), 8: ("torch", "fp32")}
    assert rows[-1].speedup_deployed == pytest.approx(5.0)
    absent = row("teacher", "tensorrt", "fp16", None, "there is no GPU")
    rows, (none,) = against_deployed([TEACHERS[0], absent, STUDENTS[1]], "engine")
    assert (none.teacher, none.among) == (None, ())
    assert none.reason == "the teacher was not measured in any target but ONNX Runtime; there is no GPU"
    assert rows[-1].speedup_deployed is None
