from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sample_reports import NO_ENGINE, NO_GPU, gate, report_of

from vitcompress.core.measured_records import GatesRecord
from vitcompress.pipeline.report.document import Records


def row_of(report: dict[str, Any], model: str, runtime: str, precision: str = "fp32") -> dict[str, Any]:
    wanted = (model, runtime, precision)
    return next(row for row in report["models"] if (row["model"], row["runtime"], row["precision"]) == wanted)


def test_a_report_is_strict_json_with_every_row_of_the_records(case: Records) -> None:
    report = report_of(case)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for part in ("accuracy", "latency", "throughput", "memory", "flips"):
        assert len(report[part]) == len(getattr(case.verify, part))
    assert len(report["gates"]) == len(case.gates.rows)
    rows, graphs = report["models"], report["graphs"]
    assert [row["model"] for row in rows if row["deployed"]] == [case.export.deployed]
    assert rows[0]["model"] == "teacher"
    assert (rows[-1]["runtime"], rows[-1]["precision"]) == ("tensorrt-rtx", "fp16")
    assert graphs["agreement"]["value"] == case.fold.max_logit_difference
    assert (graphs["agreement"]["value"] is None) == bool(graphs["agreement"]["reason"])
    assert [row["parameters"] for row in graphs["rows"]] == [
        one.cost.parameters for one in case.export.student.values()
    ]


def test_headline_numbers_are_those_of_the_records(case: Records) -> None:
    head, export = report_of(case)["headline"], case.export
    teacher, deployed = export.teacher, export.student[export.deployed]
    assert head["teacher_top1"]["value"] == case.verify.accuracy[0].top1
    assert (head["drop"]["value"], head["drop"]["low"], head["drop"]["high"]) == (1.23, 1.23 - 0.9, 1.23 + 0.9)
    assert head["parameters"]["ratio"] == teacher.cost.parameters / deployed.cost.parameters
    sizes = {"teacher": teacher.file.bytes, "student": deployed.file.bytes}
    assert head["bytes"] == sizes | {"ratio": teacher.file.bytes / deployed.file.bytes}
    assert head["speedup"]["value"] == head["teacher_p50_ms"]["value"] / head["student_p50_ms"]["value"]
    assert head["speedup_deployed"]["value"] == pytest.approx(0.9 * head["speedup"]["value"])
    assert (head["speedup_against"], head["deployed_teacher"]) == ("teacher, ONNX CPU", "teacher, torch")


def test_missing_numbers_are_null_with_a_reason(case: Records) -> None:
    report = report_of(case)
    row = row_of(report, case.export.deployed, "tensorrt-rtx", "fp16")
    why = NO_GPU if case.export.engines[0].status == "built" else NO_ENGINE
    for quantity in (row["top1"], row["drop"], row["latency"]["1"]["p50_ms"], row["latency"]["8"]["p99_ms"]):
        assert quantity == {"value": None, "low": None, "high": None, "reason": why}
    assert {row["latency"]["1"][name]["reason"] for name in ("speedup", "speedup_deployed")} == {why}
    of_teacher = row_of(report, "teacher", "tensorrt-rtx", "fp16")
    assert (of_teacher["top1"]["reason"], of_teacher["latency"]["8"]["p50_ms"]["reason"]) == (why, why)
    assert row["bytes_reason"] == ("" if why == NO_GPU else NO_ENGINE)
    deployed = row_of(report, case.export.deployed, "onnx")
    assert deployed["latency"]["1"]["p99_ms"]["reason"] == "fewer than 100 samples"
    memory = row_of(report, "teacher", "torch")["memory"]
    assert (memory["value"], "shares its process" in memory["reason"]) == (None, True)


def test_weights_in_their_own_file_count(lift: Records) -> None:
    teacher = lift.export.teacher
    data = teacher.file.model_copy(update={"path": "export/teacher.onnx.data", "bytes": 5_000_000_000})
    export = lift.export.model_copy(update={"teacher": teacher.model_copy(update={"data": data})})
    report = report_of(replace(lift, export=export))
    total = teacher.file.bytes + 5_000_000_000
    assert row_of(report, "teacher", "onnx")["bytes"] == report["headline"]["bytes"]["teacher"] == total
    assert report["artifacts"]["teacher"]["megabytes"] == total / 1e6


def test_a_row_says_what_it_ran_on_and_an_unknown_model_has_no_cost(lift: Records) -> None:
    on_gpu = lift.verify.accuracy[-3].model_copy(update={"model": "mystery", "provider": "CUDAExecutionProvider"})
    verify = lift.verify.model_copy(update={"accuracy": (*lift.verify.accuracy, on_gpu)})
    report = report_of(replace(lift, verify=verify))
    row = row_of(report, "mystery", "onnx")
    assert row["label"] == "student mystery, ONNX GPU"
    assert (row["parameters"], row["cost_reason"]) == (None, "no cost is recorded for 'mystery'")
    assert row_of(report, "teacher", "onnx")["label"] == "teacher, ONNX CPU"
    assert row_of(report, "teacher", "torch")["label"] == "teacher, torch"


def test_not_a_number_becomes_null_and_is_said(lift: Records) -> None:
    distill = lift.distill.model_copy(update={"losses": {"ce": float("nan"), "kd": 0.2}})
    report = report_of(replace(lift, distill=distill))
    assert report["training"]["distill"]["losses"] == {"ce": None, "kd": 0.2}
    assert report["notes"][-1] == "A number that is not finite (NaN or infinite) is null in report.json."
    assert len(report["notes"]) == 1 + len(report_of(lift)["notes"])
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("verdicts", "word", "why"),
    [
        ((), "DONE", "no gate was set, so nothing was judged"),
        (("pass", "pass"), "PASS", "all 2 gates passed"),
        (("pass", "unmeasured"), "PASS", "1 of 2 gates passed, the others are not required"),
        (("pass", "inconclusive"), "UNDECIDED", "no gate failed, but not all could be decided"),
        (("unmeasured", "unmeasured"), "UNDECIDED", "no gate failed, but not all could be decided"),
        (("inconclusive", "fail"), "FAIL", "1 of 2 gates stand in the way"),
    ],
)
def test_the_word_says_no_more_than_was_measured(lift: Records, verdicts: tuple[str, ...], word: str, why: str) -> None:
    rows = tuple(
        gate("min_accuracy", "onnx", 90.0, verdict, None if verdict == "unmeasured" else 91.0, False, "said so")
        for verdict in verdicts
    )
    verdict = report_of(replace(lift, gates=GatesRecord(rows=rows, passed="fail" not in verdicts)))["verdict"]
    assert (verdict["word"], verdict["why"], verdict["passed"]) == (word, why, word != "FAIL")
    assert verdict["blocking"] == ["onnx top-1: fail"] * (word == "FAIL")


def test_the_recommended_precision_is_the_deployed_row(lift: Records) -> None:
    bundle = lift.bundle.model_copy(update={"onnx": "fp16"})
    report = report_of(replace(lift, bundle=bundle))
    (row,) = [row for row in report["models"] if row["deployed"]]
    assert (row["runtime"], row["precision"]) == ("onnx", "fp16")
    assert row["label"] == "student lift-folded fp16, ONNX CPU (deployed)"
    assert row["bytes"] == lift.export.reduced["fp16"].bytes == report["headline"]["bytes"]["student"]


def test_what_was_asked_for_by_name_and_not_made_fails_the_run(lift: Records) -> None:
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: too far from fp32",)})
    gates = lift.gates.model_copy(update={"passed": False})
    verdict = report_of(replace(lift, export=export, gates=gates))["verdict"]
    assert (verdict["word"], verdict["exit_code"]) == ("FAIL", 1)
    assert verdict["blocking"] == ["not made: int8 ONNX: too far from fp32"]
    assert verdict["why"] == "something that was asked for could not be made"
