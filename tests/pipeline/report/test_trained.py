"""Findings speak where a difference is larger than chance makes it, and say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sample_measurements import accuracy
from sample_reports import CASES, gate, report_of

from vitcompress.core.measured_records import AccuracyRow, GatesRecord, VerifyRecord
from vitcompress.core.records import ControlRecord
from vitcompress.pipeline.report import markdown, terminal
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.shape import Finding
from vitcompress.pipeline.report.trained import evaluated, findings, worth


def row(model: str, top1: float, images: int = 1000) -> AccuracyRow:
    return accuracy(model, "torch", top1, None if model == "teacher" else 1.0).model_copy(update={"images": images})


def findings_of(
    student: AccuracyRow | None = None,
    teacher_row: AccuracyRow | None = None,
    *,
    history: Sequence[dict[str, Any]] = (),
    **records: Any,
) -> list[Finding]:
    """What is found of a run with ten classes whose student is as good as these rows say."""
    student = student or row("plain", 90.0)
    verify = VerifyRecord(
        accuracy=(teacher_row or row("teacher", 91.0, student.images), student),
        latency=(),
        latency_method="",
        class_images=(student.images // 10,) * 10,
    )
    nothing = {"gates": GatesRecord(rows=(), passed=True)}
    return findings(replace(CASES["plain"], **{"verify": verify, **nothing, **records}), history)


def history(tops: Sequence[float | None], training: str = "student", **more: Any) -> list[dict[str, Any]]:
    shared = {"training": training, "settings": "a", "loss": 1.0, "val_top1_ema": None, **more}
    return [{**shared, "epoch": index + 1, "val_top1_raw": top} for index, top in enumerate(tops)]


def only(found: Sequence[Finding]) -> Finding:
    (one,) = found
    return one


@pytest.mark.parametrize(
    ("tops", "told"),
    [
        ([10.0, 15.0, 19.0, 23.5], "last epoch gained 4.5 points (19.0 to 23.5 %)"),
        ([10.0, None, 40.0, None, 60.0], "last 2 epochs gained 20.0 points (40.0 to 60.0 %)"),
        ([float(epoch) for epoch in range(40, 80)], "last 4 epochs gained 4.0 points (75.0 to 79.0 %)"),
    ],
)
def test_still_improving_at_the_end(tops: list[float | None], told: str) -> None:
    found = only(findings_of(history=history(tops)))
    assert (found.code, found.severity) == ("student-still-improving", "warning")
    assert told in found.text
    assert f"distill.epochs={2 * len(tops)}" in found.text


@pytest.mark.parametrize(
    ("tops", "images"),
    [
        ([40.0, 70.0, 85.0, 89.0, 90.5, 90.4, 90.6, 90.5], 1000),  # a good training
        ([70.0, 80.0, 82.0, 84.0], 359),  # within the noise of so few images
        ([70.0, 80.0, 84.0, 84.4], 1_000_000),  # sure, and not worth it
        ([84.0], 1000),
        ([None, None], 1000),
    ],
)
def test_no_gain_that_is_noise_or_nothing(tops: list[float | None], images: int) -> None:
    assert findings_of(row("plain", 84.0, images), history=history(tops)) == []


def test_better_before_it_ended() -> None:
    found = only(findings_of(history=history([60.0, 85.0, 70.0, 71.0, 70.0])))
    assert (found.code, found.severity) == ("student-past-its-best", "warning")
    assert "85.0 % after epoch 2 and 70.0 % after 5" in found.text


def test_the_teachers_own_training_is_asked_too_and_the_controls_and_earlier_settings_are_not() -> None:
    rising = [10.0, 30.0, 50.0]
    lines = history(rising) + history([88.0, 90.0, 90.0], settings="b")
    found = only(findings_of(history=history(rising, "teacher") + history(rising, "control") + lines))
    assert found.code == "teacher-still-improving"
    assert "teacher.epochs=6" in found.text


def test_a_teacher_whose_best_epoch_was_kept_is_judged_by_the_images_that_chose_it() -> None:
    teacher = CASES["plain"].teacher.model_copy(update={"tuning_images": 200})

    def found(*tops: float) -> list[Finding]:
        return findings_of(history=history(tops, "teacher", judged_on="tuning"), teacher=teacher)

    assert found(60.0, 85.0, 70.0) == []  # the second epoch's weights were kept
    assert found(60.0, 80.0, 85.0) == []  # five points are noise on 200 images
    assert only(found(40.0, 60.0, 80.0)).code == "teacher-still-improving"


def test_an_evaluation_counts_the_weights_that_would_have_been_kept() -> None:
    lines = history([50.0, 60.0, None])
    lines[0]["val_top1_ema"] = 55.0
    lines[2]["val_top1_ema"] = float("nan")
    assert evaluated(lines) == [(1, 55.0), (2, 60.0)]


def test_never_left_chance_is_an_error_where_it_fails_the_run() -> None:
    failing = GatesRecord(rows=(gate("above_chance", "student", 10.0, "fail", 10.5, True, "why"),), passed=False)
    found = only(findings_of(row("plain", 10.5), gates=failing))
    assert (found.code, found.severity) == ("never-left-chance", "error")
    assert "10.5 % of 1,000 held-out images right, where chance is 10.0 %" in found.text
    assert only(findings_of(row("plain", 10.5))).severity == "warning"  # the user has allowed it
    assert only(findings_of(teacher_row=row("teacher", 10.0))).code == "teacher-at-chance"
    assert findings_of(row("plain", 30.0, 10), row("teacher", 40.0, 10)) == []  # too few images to tell


def trained(gain: float, half: float = 2.0, **changes: Any) -> ControlRecord:
    return ControlRecord(
        kind="labels",
        epochs=30,
        steps=1860,
        seconds=900.0,
        images=1000,
        val_top1=80.0,
        distilled_top1=80.0 + gain,
        gain=gain,
        gain_low=gain - half,
        gain_high=gain + half,
        **changes,
    )


@pytest.mark.parametrize(
    ("control", "told"),
    [
        (trained(3.1, 1.9), "the teacher was worth +3.1 points [1.2, 5.0] over labels alone at equal steps"),
        (trained(3.1, 1.9, start="random"), "the teacher was worth +3.1 points [1.2, 5.0] over labels "
         "alone from random weights at equal steps"),
        (trained(-0.4, 1.7), "the teacher was worth nothing here: -0.4 points [-2.1, 1.3] over labels alone at equal "
         "steps"),
        (trained(-5.0, 2.0), "the teacher did harm here: -5.0 points [-7.0, -3.0] over labels alone at equal steps"),
        (ControlRecord(), ""),
    ],
)  # fmt: skip
def test_what_the_teacher_was_worth(control: ControlRecord, told: str) -> None:
    assert worth(control) == told
    assert [one.code for one in findings_of(control=control)] == ["below-labels"] * ("harm" in told)


def test_every_rendering_tells_both(case: Records) -> None:
    lines = history([10.0, 30.0, 50.0]) + history([50.0], "control")
    report = report_of(replace(case, control=trained(3.1, 1.9)), history=lines)
    assert report["training"]["control"]["gain"] == {"value": 3.1, "low": pytest.approx(1.2), "high": 5.0, "reason": ""}
    assert [one["code"] for one in report["findings"]] == ["student-still-improving"]
    text = " ".join(str(part) for part in terminal.table(report).renderables)  # type: ignore[attr-defined]
    for rendering in (text, markdown.render(report)):
        assert "he teacher was worth +3.1 points [1.2, 5.0] over labels alone at equal steps." in rendering
        assert "train longer, for example distill.epochs=6." in rendering
    assert {line["training"] for line in report["history"]} == {"student", "control"}
    alone = report_of(case, history=lines)["history"]  # the control is of an earlier request
    assert {line["training"] for line in alone} == {"student"}
