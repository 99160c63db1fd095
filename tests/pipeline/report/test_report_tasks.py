"""Reports of every task speak of its own score, show its metrics, and which classes are taken for which."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import printed
from sample_reports import gate, report_of

from vitcompress.core.measured_records import Confusion, GatesRecord, MetricRow
from vitcompress.pipeline.check.baseline import baseline_of
from vitcompress.pipeline.check.limits import LIMITS, Change
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.html import charts, page
from vitcompress.pipeline.report.junit import junit_of
from vitcompress.pipeline.report.markdown import render
from vitcompress.pipeline.report.shape import Report
from vitcompress.pipeline.report.terminal import table

HISTORY = [{"training": "student", "epoch": epoch, "loss": 1.0, "val_top1_raw": 90.0} for epoch in (1, 2)]


def of_task(given: Records, task: Any, labelled: bool = True, **changed: Any) -> Records:
    """The run as another task's; its gates failed."""
    rows = (MetricRow(model="teacher", runtime="onnx", metric="knn", label="k-NN accuracy", value=81.25),)
    names = ("max_accuracy_drop", "min_accuracy")
    return replace(
        given,
        data=given.data.model_copy(update={"task": task, "labelled": labelled}),
        verify=given.verify.model_copy(update={"task": task, "metrics": rows, "flips": (), **changed}),
        export=given.export.model_copy(update={"missing": {}}),
        gates=GatesRecord(
            rows=tuple(gate(name, "onnx", 95.0, "fail", 91.07, True, "") for name in names), passed=False
        ),
    )


@pytest.mark.parametrize(
    ("task", "labelled", "score"),
    [
        ("multilabel", True, "mAP"),
        ("embedding", True, "recall@1"),
        ("embedding", False, "neighbour agreement"),
        ("classification", False, "agreement with the teacher"),
    ],
)
def test_each_output_speaks_of_the_tasks_own_score(
    lift: Records, tmp_path: Path, task: Any, labelled: bool, score: str
) -> None:
    report = report_of(of_task(lift, task, labelled), history=HISTORY)
    told = [page.render(report, tmp_path), render(report), printed(table(report), 120), junit_of(report)]
    assert [score.lower() in text.lower() for text in told] == [True] * 4
    assert not any("top-1" in text.lower() for text in told)
    assert ("cosine to the teacher" in charts.trainings(report)[0].caption.lower()) == (task == "embedding")
    assert f"onnx drop of {score}: fail" in report["verdict"]["blocking"]
    assert ("81.25" in told[2]) == (task != "classification")
    assert (report["headline"]["teacher_top1"]["value"] is None) == (not labelled)
    assert Report.model_validate_json(json.dumps(report)).score.label == score


def test_confused_classes_are_drawn_where_they_are_few_and_listed(lift: Records, tmp_path: Path) -> None:
    places = {"teacher": "torch", "lift-folded": "onnx", "lift-kept": "onnx"}
    cells = ((4, 1, 7), (0, 9, 1))
    found = tuple(Confusion(model=model, runtime=runtime, cells=cells) for model, runtime in places.items())  # type: ignore[arg-type]
    small = {"confusions": found, "class_images": (100,) * 9 + (2,)}
    judged = GatesRecord(rows=(gate("min_class_recall", "onnx", 5, "pass", 9, True, ""),), passed=True)
    records = replace(of_task(lift, "classification", **small), gates=judged)
    report = report_of(records)
    assert [one["model"] for one in report["confusions"]] == ["teacher", "lift-folded"]
    assert "'j' has 2" in report["notes"][-1]
    drawn = page.render(report, tmp_path)
    assert drawn.count("<title>e: 7 of 100 answered as b</title>") == 2
    assert "| e | b | 100 | 7 | 7 |" in render(report)
    many = replace(records, data=records.data.model_copy(update={"classes": tuple(map(str, range(60)))}))
    assert "<svg" not in page.render(report_of(many), tmp_path)


def test_a_score_that_is_no_share_of_images_is_compared_with_its_baseline_by_both_intervals(lift: Records) -> None:
    now = report_of(of_task(lift, "multilabel"))
    before = baseline_of(Report.model_validate_json(json.dumps(now)), Path("x"))
    old = before.artifacts["onnx-fp32"]
    assert (before.score, old.right, old.ends) == ("mAP", "", pytest.approx((89.37, 92.77)))
    new = old.model_copy(update={"top1": 88.07, "ends": (86.37, 89.77)})
    found = LIMITS["max_accuracy_loss"].measure(Change("onnx-fp32", old, new, before, before))
    assert found.value == pytest.approx(3)
    assert (found.low, found.high) == pytest.approx((3 - 2.404 * 1.187, 3 + 2.404 * 1.187), abs=0.01)
