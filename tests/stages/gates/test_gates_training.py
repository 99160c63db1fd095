"""What is judged of the training: the teacher's worth, and a student that never left chance."""

from __future__ import annotations

import numpy as np
import pytest

from vitcompress.core.artifact_records import AccuracyRow, VerifyRecord
from vitcompress.core.records import ControlRecord
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.judge import judge, passed
from vitcompress.stages.gates.training import NO_CONTROL, at_chance, judged_training
from vitcompress.stages.training.accuracy import share_interval


def trained(gain: float, low: float, high: float) -> ControlRecord:
    return ControlRecord(kind="labels", gain=gain, gain_low=low, gain_high=high)


@pytest.mark.parametrize(
    ("control", "limit", "verdict", "passes"),
    [
        (trained(3.1, 1.2, 5.0), 1.0, "pass", True),
        (trained(3.1, 1.2, 5.0), 2.0, "inconclusive", True),
        (trained(3.1, 1.2, 5.0), 6.0, "fail", False),
        (ControlRecord(), 0.5, "unmeasured", False),
    ],
)
def test_the_teachers_worth_is_judged_by_its_interval_and_required(
    control: ControlRecord, limit: float, verdict: str, passes: bool
) -> None:
    judged = judged_training(GatesConfig(min_teacher_gain=limit, require=()), control)
    (row,) = judge([judged], require_conclusive=False)
    assert (row.gate, row.artifact, row.verdict) == ("min_teacher_gain", "student", verdict)
    assert passed([row]) is passes
    if verdict == "unmeasured":
        assert row.why == NO_CONTROL
    strict = judge([judged], require_conclusive=True)
    assert passed(strict) is (verdict == "pass")


def test_without_a_limit_there_is_no_row() -> None:
    assert judge([judged_training(GatesConfig(), trained(-3.0, -4.0, -2.0))], require_conclusive=True) == ()


def measured(right: int, images: int, classes: tuple[int, ...]) -> VerifyRecord:
    top1, low, high = share_interval(np.arange(images) < right)
    row = AccuracyRow(
        model="plain",
        runtime="torch",
        images=images,
        top1=top1,
        top1_low=low,
        top1_high=high,
        top5=None,
        drop=None,
        drop_low=None,
        drop_high=None,
    )
    return VerifyRecord(accuracy=(row,), latency=(), latency_method="", class_images=classes)


@pytest.mark.parametrize(
    ("right", "images", "classes", "failed"),
    [
        (36, 360, (36,) * 10, True),  # as a guess
        (60, 360, (36,) * 10, False),
        (4, 10, (5, 5), False),  # too few images to tell
        (300, 360, (300, 60), True),  # always the commonest class
        (340, 360, (300, 60), False),
    ],
)
def test_a_student_at_chance_fails_the_run(right: int, images: int, classes: tuple[int, ...], failed: bool) -> None:
    rows = at_chance("plain", measured(right, images, classes), len(classes))
    assert bool(rows) is failed
    assert passed(rows) is not failed
    for row in rows:
        assert row.limit == pytest.approx(100 * max(classes) / images)
        assert row.value == pytest.approx(100 * right / images)
        assert row.low < row.value < row.high  # type: ignore[operator]


def test_records_of_earlier_versions_are_not_judged_against_chance() -> None:
    assert at_chance("plain", VerifyRecord(accuracy=(), latency=(), latency_method=""), 10) == ()
    older = measured(1, 100, ())
    assert at_chance("plain", older, 10) == ()
