"""How many times as fast as the teacher: as the same kind of artifact, and as the one that is deployed today."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vitcompress.core.artifact_records import arithmetic_of
from vitcompress.core.measured_records import LatencyRow, TeacherReference, TeacherTime
from vitcompress.exporters.latency import change_interval, speedup_interval
from vitcompress.exporters.latency.statistics import CONFIDENCE, logs_of
from vitcompress.stages.judging.config import TeacherChoice
from vitcompress.stages.judging.contestant import COMPILED, TEACHER

RESAMPLES = 2000
"""Of the bootstrap behind each interval of a latency or a speed-up."""
_CALLED: dict[TeacherChoice, str] = {
    "best": "in any runtime",
    "torch": "in torch",
    "compiled": "compiled by torch",
    "onnx": "in ONNX Runtime",
    "engine": "in any target but ONNX Runtime",
}


def with_speedup(rows: Sequence[LatencyRow]) -> list[LatencyRow]:
    """Return the rows of one runtime and batch size with each student's speed-up over the teacher in its precision.

    In ONNX Runtime the teacher in fp32 stands for one that is not there in the student's precision. In another target
    nothing does: part of the speed-up would be the precision's.
    """
    teachers = {row.precision: row for row in rows if row.model == TEACHER}
    return [row if row.model == TEACHER or row.p50_ms is None else _compared(row, teachers) for row in rows]


def _compared(row: LatencyRow, teachers: dict[Any, LatencyRow]) -> LatencyRow:
    """Return a measured student's row with its speed-up, or with the reason why it has none."""
    own, fp32 = teachers.get(arithmetic_of(row.precision)), teachers.get("fp32")
    teacher = fp32 if row.runtime == "onnx" and (own is None or own.p50_ms is None) else own
    if teacher is None or teacher.p50_ms is None:
        why = f": {teacher.reason}" if teacher else ""
        return row.model_copy(
            update={"speedup_reason": f"no teacher was measured in {row.runtime} {row.precision}{why}"}
        )
    found = speedup_interval(np.array(teacher.session_p50_ms), np.array(row.session_p50_ms), RESAMPLES, seed=0)
    return row.model_copy(update=_fields("speedup", found) | {"speedup_against": teacher.precision})


def against_deployed(
    rows: Iterable[LatencyRow], choice: TeacherChoice
) -> tuple[tuple[LatencyRow, ...], tuple[TeacherReference, ...]]:
    """Return all rows with each student's speed-up over the teacher as it is deployed today, and which that is.

    That is, at each batch size, the fastest of the teacher's rows that ``choice`` allows. Rows of one runtime are of
    the same sessions; those of two are independent measurements.
    """
    rows = tuple(rows)
    references: dict[int, TeacherReference] = {}
    fastest: dict[int, LatencyRow] = {}
    for batch in dict.fromkeys(row.batch for row in rows):
        allowed = [row for row in rows if row.batch == batch and row.model == TEACHER and _is_allowed(row, choice)]
        among = sorted((row for row in allowed if row.p50_ms is not None), key=lambda row: row.p50_ms or 0.0)
        whys = dict.fromkeys(row.reason for row in allowed if row.reason)
        reason = "; ".join((f"the teacher was not measured {_CALLED[choice]}", *whys))
        times = tuple(
            TeacherTime(runtime=row.runtime, precision=row.precision, p50_ms=row.p50_ms or 0.0) for row in among
        )
        references[batch] = TeacherReference(
            batch=batch, teacher=times[0] if times else None, among=times, reason="" if times else reason
        )
        fastest |= {batch: among[0]} if among else {}
    compared = (
        row
        if row.model == TEACHER or row.p50_ms is None or row.batch not in fastest
        else row.model_copy(update=_fields("speedup_deployed", ratio(fastest[row.batch], row)))
        for row in rows
    )
    return tuple(compared), tuple(references.values())


def _is_allowed(row: LatencyRow, choice: TeacherChoice) -> bool:
    kind = {"torch": "torch", COMPILED: "compiled", "onnx": "onnx"}.get(row.runtime, "engine")
    return choice in ("best", kind)


def ratio(reference: LatencyRow, row: LatencyRow) -> tuple[float, float, float]:
    """Return the reference's median over the row's with its interval; both are of one batch size."""
    theirs, own = np.array(reference.session_p50_ms), np.array(row.session_p50_ms)
    if reference.runtime == row.runtime:
        return speedup_interval(theirs, own, RESAMPLES, seed=0)
    return change_interval(logs_of(theirs), logs_of(own), CONFIDENCE)


def _fields(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
