"""Findings speak where a difference is larger than chance makes it, and say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sample_reports import CASES, gate, report_of

from vitcompress.core.artifact_records import AccuracyRow, GatesRecord, VerifyRecord
from vitcompress.core.records import ControlRecord
from vitcompress.pipeline.report import markdown, terminal
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.shape import Finding
from vitcompress.pipeline.report.trained import evaluated, findings, noise, worth


def row(model: str, top1: float, drop: float | None = None, half: float = 1.0, images: int = 1000) -> AccuracyRow:
    return AccuracyRow(
        model=model,
        runtime="torch",
        images=images,
        top1=top1,
        top5=None,
        drop=drop,
        drop_low=None if drop is None else drop - half,
        drop_high=None if drop is None else drop + half,
    )


def findings_of(
    student: AccuracyRow | None = None,
    teacher_row: AccuracyRow | None = None,
    *,
    history: Sequence[dict[str, Any]] = (),
    taught: bool = True,
    **records: Any,
) -> list[Finding]:
    """What is found of a run with ten classes whose student is as good as these rows say."""
    student, case = student or row("plain", 90.0, 1.0), CASES["plain"]
    verify = VerifyRecord(
        accuracy=(teacher_row or row("teacher", 91.0, images=student.images), student),
        latency=(),
        latency_method="",
        class_images=(student.images // 10,) * 10,
    )
    losses = {"labels": 0.3} | ({"kd": 0.2} if taught else {})
    distill = case.distill.model_copy(update={"losses": losses})
    nothing = {"gates": GatesRecord(rows=(), passed=True)}
    return findings(replace(case, **{"verify": verify, "distill": distill, **nothing, **records}), history)


def history(
    tops: Sequence[float | None], training: str = "student", losses: Sequence[float] = (), every: int = 1
) -> list[dict[str, Any]]:
    return [
        {
            "training": training,
            "settings": "a",
            "epoch": (index + 1) * every,
            "loss": losses[index] if losses else 1.0 / (index + 1),
            "val_top1_raw": top,
            "val_top1_ema": None,
        }
        for index, top in enumerate(tops)
    ]


def codes(found: Sequence[Finding]) -> list[str]:
    return [one.code for one in found]


def only(found: Sequence[Finding]) -> Finding:
    (one,) = found
    return one


def test_a_good_training_has_no_findings() -> None:
    tops = [40.0, 70.0, 85.0, 89.0, 90.5, 90.4, 90.6, 90.5]
    assert findings_of(history=history(tops)) == []


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
        ([70.0, 80.0, 82.0, 84.0], 359),  # within the noise of so few images
        ([70.0, 80.0, 84.0, 84.4], 1_000_000),  # sure, and not worth it
        ([84.0], 1000),
        ([None, None], 1000),
        ([], 1000),
    ],
)
def test_no_gain_that_is_noise_or_nothing(tops: list[float | None], images: int) -> None:
    student = row("plain", 84.0, 1.0, images=images)
    assert findings_of(student, row("teacher", 85.0, images=images), history=history(tops)) == []


def test_better_before_it_ended() -> None:
    found = only(findings_of(history=history([60.0, 85.0, 70.0, 71.0, 70.0])))
    assert (found.code, found.severity) == ("student-past-its-best", "warning")
    assert "85.0 % after epoch 2 and 70.0 % after 5" in found.text


def test_a_rising_loss() -> None:
    losses = [2.0, 1.0, 0.8, 0.7, 0.9]
    found = only(findings_of(history=history([90.0] * 5, losses=losses)))
    assert (found.code, found.severity) == ("student-loss-rising", "warning")
    assert "from 0.7 in epoch 4 to 0.9 in epoch 5" in found.text
    for harmless in ([2.0, 1.0, 0.8, 0.7, 0.72], [2.0, 0.7, 1.2, 1.1, 1.0], [0.5, 0.9], [1.0, 0.9, float("nan")]):
        assert findings_of(history=history([90.0] * len(harmless), losses=harmless)) == []


def test_a_balanced_terms_scale_is_no_rise() -> None:
    lines = history([90.0] * 3, losses=[3.0, 6.0, 9.0])
    for line, spectral, labels in zip(lines, (1.0, 5.0, 8.5), (2.0, 1.0, 0.5), strict=True):
        line |= {"losses": {"labels": labels, "spectral 1<-1": spectral}, "scales": {"spectral 1<-1": spectral}}
    assert findings_of(history=lines) == []
    for line in lines:
        line["scales"] = {}
    assert only(findings_of(history=lines)).code == "student-loss-rising"


def test_the_teachers_own_training_is_asked_too_and_the_controls_is_not() -> None:
    rising = [10.0, 30.0, 50.0]
    found = only(findings_of(history=history(rising, "teacher") + history(rising, "control")))
    assert found.code == "teacher-still-improving"
    assert "teacher.epochs=6" in found.text


def test_a_teacher_whose_best_epoch_was_kept_is_judged_by_the_images_that_chose_it() -> None:
    teacher = CASES["plain"].teacher.model_copy(update={"tuning_images": 200})

    def found(*tops: float) -> list[Finding]:
        lines = [{**line, "judged_on": "tuning"} for line in history(tops, "teacher")]
        return findings_of(history=lines, teacher=teacher)

    assert found(60.0, 85.0, 70.0) == []  # the second epoch's weights were kept
    assert found(60.0, 80.0, 85.0) == []  # five points are noise on 200 images
    assert only(found(40.0, 60.0, 80.0)).code == "teacher-still-improving"


def test_only_the_last_settings_of_a_training_count() -> None:
    lines = history([10.0, 30.0, 50.0])
    last = [{**line, "settings": "b"} for line in history([88.0, 90.0, 90.0])]
    assert findings_of(history=[*lines, *last]) == []


def test_an_evaluation_counts_the_weights_that_would_have_been_kept() -> None:
    lines = history([50.0, 60.0, None])
    lines[0]["val_top1_ema"] = 55.0
    lines[2]["val_top1_ema"] = float("nan")
    assert evaluated(lines) == [(1, 55.0), (2, 60.0)]


def test_the_noise_is_that_of_two_independent_shares() -> None:
    assert noise(50.0, 50.0, 1000) == pytest.approx(1.96 * 100 * (2 * 0.25 / 1000) ** 0.5, rel=1e-3)
    assert noise(100.0, 0.0, 10) == 0.0


def test_never_left_chance_is_an_error_where_it_fails_the_run() -> None:
    student = row("plain", 10.5, 80.0)
    failing = GatesRecord(rows=(gate("above_chance", "student", 10.0, "fail", 10.5, True, "why"),), passed=False)
    first, *others = findings_of(student, gates=failing)
    assert (first.code, first.severity) == ("never-left-chance", "error")
    assert "10.5 % of 1,000 held-out images right, where chance is 10.0 %" in first.text
    assert codes(others) == ["far-below-teacher"]
    assert findings_of(student)[0].severity == "warning"  # the user has allowed it


def test_few_images_and_a_teacher_at_chance() -> None:
    few = findings_of(row("plain", 30.0, 0.5, 30.0, images=10), row("teacher", 40.0, images=10))
    assert codes(few) == ["chance-undecided"]
    lost = findings_of(teacher_row=row("teacher", 10.0))
    assert codes(lost) == ["teacher-at-chance"]
    assert "teacher.epochs" in lost[0].text


@pytest.mark.parametrize(
    ("drop", "half", "code"),
    [(-5.0, 1.0, "teacher-worse"), (-0.5, 1.0, "teacher-near"), (0.0, 1.0, None), (4.0, 1.0, None),
     (40.0, 3.0, "far-below-teacher"), (7.0, 3.0, None)],
)  # fmt: skip
def test_beside_the_teacher(drop: float, half: float, code: str | None) -> None:
    student = row("plain", 50.0, drop, half)
    assert codes(findings_of(student)) == ([code] if code else [])
    assert findings_of(student, taught=False) == []
    if code == "far-below-teacher":
        assert "40.0 points [37.0, 43.0]" in findings_of(student)[0].text
        assert findings_of(student, control=trained(1.0)) == []
    if code == "teacher-worse":
        assert "5.0 points [4.0, 6.0]" in findings_of(student)[0].text


def trained(gain: float, half: float = 2.0, **changes: Any) -> ControlRecord:
    return ControlRecord(
        kind="labels",
        epochs=30,
        epochs_why="as many as with the teacher",
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
        (trained(3.1, 1.9, start="random"), "the teacher was worth +3.1 points [1.2, 5.0] over labels alone from "
         "random weights at equal steps"),
        (trained(-0.4, 1.7), "the teacher was worth nothing here: -0.4 points [-2.1, 1.3] over labels alone at equal "
         "steps"),
        (trained(0.4, 1.7), "the teacher was worth nothing here that 1,000 images can show: +0.4 points [-1.3, 2.1] "
         "over labels alone at equal steps"),
        (trained(-5.0, 2.0), "the teacher did harm here: -5.0 points [-7.0, -3.0] over labels alone at equal steps"),
        (trained(3.0, match="time"), "the teacher was worth +3.0 points [1.0, 5.0] over labels alone at equal time (30 "
         "epochs without it)"),
        (ControlRecord(), ""),
    ],
)  # fmt: skip
def test_what_the_teacher_was_worth(control: ControlRecord, told: str) -> None:
    assert worth(control) == told


def test_a_student_below_labels_alone() -> None:
    assert codes(findings_of(control=trained(-5.0))) == ["below-labels"]
    assert findings_of(control=trained(-1.0)) == []


def with_control(case: Records) -> Records:
    rows = (
        *case.gates.rows,
        gate("min_teacher_gain", "student", 0.5, "pass", 3.1, True, "the whole interval is within the limit"),
    )
    return replace(case, control=trained(3.1, 1.9), gates=case.gates.model_copy(update={"rows": rows}))


def test_every_rendering_tells_both(case: Records) -> None:
    lines = history([10.0, 30.0, 50.0])
    report = report_of(with_control(case), history=lines)
    assert report["training"]["control"]["gain"] == {"value": 3.1, "low": pytest.approx(1.2), "high": 5.0, "reason": ""}
    assert codes([Finding(**one) for one in report["findings"]]) == ["student-still-improving"]
    text = " ".join(str(part) for part in terminal.table(report).renderables)  # type: ignore[attr-defined]
    page = markdown.render(report)
    for rendering in (text, page):
        assert "he teacher was worth +3.1 points [1.2, 5.0] over labels alone at equal steps." in rendering
        assert "train longer, for example distill.epochs=6." in rendering
    assert "student gain by the teacher over labels alone" in page


def test_without_a_control_its_epochs_of_an_earlier_request_are_not_reported(lift: Records) -> None:
    lines = history([50.0]) + history([50.0], "control")
    assert {line["training"] for line in report_of(lift, history=lines)["history"]} == {"student"}
    kept = report_of(with_control(lift), history=lines)["history"]
    assert {line["training"] for line in kept} == {"student", "control"}
