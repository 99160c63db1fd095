"""What is a regression and what is not: rows of `compare` over made-up runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import ELSEWHERE, IMAGES, answers, made
from scipy.stats import ttest_ind

from vitcompress.core.artifact_records import GateRow
from vitcompress.core.bits import packed
from vitcompress.exporters.latency import change_interval
from vitcompress.exporters.latency.statistics import TRIM
from vitcompress.pipeline.check.baseline import Baseline
from vitcompress.pipeline.check.compare import compare, uncompared
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.measured import baseline_of
from vitcompress.pipeline.check.same import foreign, notes
from vitcompress.pipeline.check.tell import cause, verdict, worded
from vitcompress.pipeline.report.shape import Report

ENGINE = "tensorrt-rtx-fp16"


def read(report: dict[str, Any]) -> Baseline:
    return baseline_of(Report.model_validate_json(json.dumps(report)), Path("report.json"))


def side(**changes: Any) -> Baseline:
    return read(made(**changes))


BEFORE = side()
BARE = BEFORE.model_copy(update={"recommended": {"onnx": "onnx-fp32", "engine": None}})


def rows(now: Baseline, before: Baseline = BEFORE, **limits: Any) -> dict[tuple[str, str], GateRow]:
    return {(row.artifact, row.gate): row for row in compare(CheckConfig(**limits), before, now)}


def row_of(limit: str, now: Baseline, before: Baseline = BEFORE, **limits: Any) -> GateRow:
    """The row of the recommended ONNX file."""
    return rows(now, before, **limits)["onnx (fp32)", limit]


@pytest.mark.parametrize(
    ("limits", "gates"),
    [
        ({"max_latency_growth": 5.0, "max_growth": 1.0}, ["accuracy_loss", "slowdown", "latency_growth", "growth"]),
        ({"max_accuracy_loss": None}, ["slowdown"]),
        ({"max_slowdown": None}, ["accuracy_loss"]),
        ({"max_accuracy_loss": None, "max_slowdown": None}, []),
    ],
)
def test_the_run_that_the_baseline_was_made_of_passes_every_limit_that_is_set(
    limits: dict[str, Any], gates: list[str]
) -> None:
    found = compare(CheckConfig(artifacts=("onnx",), **limits), BEFORE, side())
    assert [(row.gate, row.verdict) for row in found] == [(f"max_{gate}", "pass") for gate in gates]
    assert verdict(found)["word"] == ("PASS" if gates else "DONE")


@pytest.mark.parametrize(
    ("changes", "allowed", "wanted"),
    [
        ({}, 0.0, "pass"),
        ({"lost": 40}, 0.0, "fail"),
        ({"lost": 2}, 0.0, "inconclusive"),  # more than none, and too few to tell from chance
        ({"lost": 2}, 2.0, "pass"),
        ({"swapped": 30}, 0.0, "inconclusive"),  # other answers, as many right: no loss, no proof of none
    ],
)
def test_accuracy_is_compared_image_by_image(changes: dict[str, int], allowed: float, wanted: str) -> None:
    row = row_of("max_accuracy_loss", side(**changes), max_accuracy_loss=allowed)
    assert row.verdict == wanted
    assert row.value == pytest.approx(100 * changes.get("lost", 0) / IMAGES)


@pytest.mark.parametrize(("slower", "wanted"), [(1.0, "pass"), (1.1, "fail"), (1.03, "inconclusive"), (0.8, "pass")])
def test_slowdown_is_judged_on_its_interval(slower: float, wanted: str) -> None:
    row = row_of("max_slowdown", side(slower=slower, seed=2))
    assert row.verdict == wanted
    assert row.value == pytest.approx(100 * (slower - 1), abs=1.0)


def test_a_slower_machine_is_no_regression_and_is_told() -> None:
    now = side(machine=3.0, seed=2, hardware=ELSEWHERE)
    assert row_of("max_slowdown", now).verdict == "pass"
    absolute = row_of("max_latency_growth", now, max_latency_growth=5.0)
    assert (absolute.verdict, absolute.required) == ("unmeasured", False)
    assert "measured on A processor (2 cores, 2 threads), this run on Another processor" in absolute.why
    told = notes(BEFORE, now)
    assert "this run on Another processor (8 cores, 8 threads)" in told[0]
    assert "Models ran on 2 threads in the baseline and on 8 here" in told[1]
    assert notes(BEFORE, side()) == []


def test_the_latency_itself_is_judged_on_hardware_that_is_known_to_be_the_same() -> None:
    now, nowhere = side(machine=1.3, seed=2), side(hardware=None)
    assert row_of("max_slowdown", now).verdict == "pass"
    assert row_of("max_latency_growth", now, max_latency_growth=5.0).verdict == "fail"
    assert row_of("max_latency_growth", nowhere, nowhere, max_latency_growth=5.0).verdict == "unmeasured"


@pytest.mark.parametrize(("allowed", "wanted"), [(1.0, "fail"), (5.0, "pass")])
def test_size_is_exact(allowed: float, wanted: str) -> None:
    report = made()
    for row in report["models"]:
        row["bytes"] = row["bytes"] and int(row["bytes"] * 1.02)
    row = row_of("max_growth", read(report), max_growth=allowed)
    assert (row.verdict, row.low, row.value) == (wanted, None, pytest.approx(2.0, abs=1e-4))


def test_an_artifact_that_the_run_lacks_fails_where_it_is_required() -> None:
    now = side()
    now = now.model_copy(update={"artifacts": {"onnx-fp16": now.artifacts["onnx-fp16"]}})
    found = compare(CheckConfig(artifacts=("onnx", "onnx-int8")), BEFORE, now)
    assert [(row.verdict, row.required) for row in found] == [("unmeasured", True)] * 2
    assert (verdict(found)["word"], verdict(found)["exit_code"]) == ("FAIL", 1)
    assert "this run has no measurement of onnx-fp32, which the baseline has" in cause(worded(found[0], 1))
    lenient = compare(CheckConfig(artifacts=("onnx",), require=()), BEFORE, now)
    assert (verdict(lenient)["word"], verdict(lenient)["exit_code"]) == ("UNDECIDED", 0)  # nothing passed either


def test_a_changed_recommendation_is_compared_like_with_like_and_told() -> None:
    now = side(bundle={"onnx": "fp16"})
    found = rows(now, artifacts=("onnx",))
    assert [key[0] for key in found] == ["onnx (fp32)"] * 2 + ["onnx (fp16)"] * 2
    assert [(row.verdict, row.required) for row in found.values()] == [("pass", True)] * 2 + [("pass", False)] * 2
    assert notes(BEFORE, now) == ["The recommended ONNX file was onnx-fp32 in the baseline and is onnx-fp16."]


def test_all_is_what_either_side_has_and_each_is_compared_once() -> None:
    found = compare(CheckConfig(artifacts=("all",), max_slowdown=None), BEFORE, side(bundle={"onnx": "fp16"}))
    assert [row.artifact for row in found] == ["onnx (fp32)", "onnx (fp16)"]
    named = compare(CheckConfig(artifacts=("all",), require=("onnx-fp16",), max_slowdown=None), BEFORE, side())
    assert [(row.artifact, row.required) for row in named] == [("onnx-fp16", True), ("onnx-fp32", False)]


@pytest.mark.parametrize(
    ("before", "now", "artifact"),
    [
        (BEFORE, BEFORE, f"engine ({ENGINE})"),
        (BARE, BEFORE, f"engine ({ENGINE})"),  # recommended now, and never measured
        (BARE, BARE, "engine"),
    ],
)
def test_an_engine_that_was_never_measured_fails_only_where_it_is_required(
    before: Baseline, now: Baseline, artifact: str
) -> None:
    found = compare(CheckConfig(artifacts=("engine",), require=("engine",)), before, now)
    assert [(row.artifact, row.verdict, row.required) for row in found] == [(artifact, "unmeasured", True)] * 2
    assert verdict(found)["exit_code"] == 1
    free = CheckConfig(artifacts=("engine",), require=())
    assert compare(free, before, now) == ()
    told = f"engine ({ENGINE}) was measured neither in the baseline nor in this run, so it is not compared."
    assert uncompared(free, before, now) == [told] * (artifact != "engine")


@pytest.mark.parametrize(
    ("limited", "said"), [(False, "no limit was set"), (True, "has an artifact that check.artifacts names")]
)
def test_why_nothing_was_compared(limited: bool, said: str) -> None:
    found = verdict((), limited=limited)
    assert (found["word"], found["exit_code"]) == ("DONE", 0)
    assert said in found["why"]


def test_what_cannot_be_timed_is_unmeasured_with_its_reason() -> None:
    other = row_of("max_slowdown", side(), batch=4)
    assert other.why == "the baseline has no times of onnx-fp32 at batch 4 (only at 1, 8)"
    single = row_of("max_slowdown", side(sessions=1))
    assert single.why == "10 and 1 sessions were timed; 2 on each side are the fewest"
    gpu = BEFORE.artifacts["onnx-fp32"].model_copy(update={"provider": "CUDAExecutionProvider"})
    moved = BEFORE.model_copy(update={"artifacts": {"onnx-fp32": gpu}})
    for limit in ("max_slowdown", "max_latency_growth"):
        row = row_of(limit, moved, max_latency_growth=5.0)
        assert (row.value, "CUDAExecutionProvider" in row.why) == (None, True)
    far = BEFORE.artifacts["onnx-fp32"].model_copy(update={"session_p50_ms": {"1": (1e-6, 1e9)}})
    teacher = BEFORE.teacher["onnx"].model_copy(update={"session_p50_ms": {"1": (1.0, 1.0)}})
    wild = BEFORE.model_copy(update={"artifacts": {"onnx-fp32": far}, "teacher": {"onnx": teacher}})
    beyond = row_of("max_slowdown", wild, wild, confidence=0.9999)
    assert (beyond.verdict, beyond.required, "measure again, for longer" in beyond.why) == ("unmeasured", True, True)


def test_an_engines_slowdown_is_relative_to_nothing() -> None:
    engine = BEFORE.artifacts["onnx-fp16"].model_copy(update={"provider": ""})
    both = BEFORE.model_copy(update={"artifacts": {**BEFORE.artifacts, ENGINE: engine}})
    found = rows(both, both, max_latency_growth=1.0)
    row = found[f"engine ({ENGINE})", "max_slowdown"]
    assert (row.verdict, row.required) == ("unmeasured", False)
    assert "no engine is built of the teacher" in row.why
    assert found[f"engine ({ENGINE})", "max_latency_growth"].value == 0


@pytest.mark.parametrize(
    ("slower", "then", "now", "expected"),
    [
        (1.0, 0.0, 0.5, "pass"),
        (1.05, 0.0, 0.0, "fail"),
        (1.05, 0.0, None, "fail"),  # unknown: nothing speaks for others
        (1.05, 0.0, 0.1, "fail"),
        (1.05, 0.0, 0.5, "inconclusive"),
        (1.05, 0.5, 0.0, "inconclusive"),
        (1.10, 0.5, 0.5, "fail"),
    ],
)
def test_a_busy_machine_is_not_taken_for_a_slow_student(
    slower: float, then: float, now: float | None, expected: str
) -> None:
    before, after = side(disturbance=then), side(slower=slower, disturbance=now, seed=2)
    assert row_of("max_slowdown", after, before).verdict == expected
    for limit in ("max_slowdown", "max_latency_growth"):
        row = row_of(limit, after, before, max_latency_growth=3.0)
        assert ("other processes took 50%" in row.why) == (row.verdict == "inconclusive" and row.low > row.limit)  # type: ignore[operator]
    told = [note for note in notes(before, after) if "counts from 3 points beyond its limit" in note]
    assert len(told) == [then, now].count(0.5)


def test_inconclusive_fails_only_when_asked() -> None:
    now = side(lost=2)
    assert verdict(compare(CheckConfig(artifacts=("onnx",)), BEFORE, now))["word"] == "UNDECIDED"
    strict = CheckConfig(artifacts=("onnx",), require_conclusive=True)
    assert verdict(compare(strict, BEFORE, now))["exit_code"] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "e" * 64}, ["1000 other held-out images"]),
        ({"data": {"classes": tuple("abcdefghik")}}, ["other classes"]),
        ({"case": "lift"}, ["strategy plain, here lift"]),
        ({"seed": 9, "lost": 7}, []),
    ],
)
def test_other_images_classes_or_networks_are_foreign(changes: dict[str, Any], said: list[str]) -> None:
    assert foreign(BEFORE, side(**changes)) == said


def test_another_teacher_is_told() -> None:
    report, other = made(), answers("another", 0.9)
    for row in report["accuracy"]:
        if (row["model"], row["runtime"]) == ("teacher", "torch"):
            row |= {"right": packed(other), "top1": float(100 * other.mean())}
    (told,) = notes(BEFORE, read(report))
    assert "it is not the same teacher" in told


def test_a_failure_is_named_in_one_line() -> None:
    accuracy = cause(worded(row_of("max_accuracy_loss", side(lost=40)), 1))
    assert accuracy.startswith("FAIL onnx (fp32): 4 points [")
    assert accuracy.endswith("of top-1 lost against the baseline, on the same images; limit 0 points.")
    latency = cause(worded(row_of("max_slowdown", side(slower=1.2, seed=2)), 1))
    assert latency.startswith("FAIL onnx (fp32): ")
    assert latency.endswith("slower against the teacher than the baseline; limit 3 %.")
    assert "\n" not in accuracy + latency


@pytest.mark.parametrize("confidence", [0.8, 0.98])
@pytest.mark.parametrize(("many", "more"), [(10, 10), (20, 12), (7, 19), (2, 9)])  # below ten it is Welch's
def test_the_interval_is_yuens(many: int, more: int, confidence: float) -> None:
    rng = np.random.default_rng([many, more])
    before, now = rng.normal(1.5, 0.02, many), rng.normal(1.4, 0.01, more)
    now[0] -= 0.5
    ratio, low, high = change_interval(before, now, confidence)
    assert low < ratio < high
    for end in (low, high):
        test = ttest_ind(before - math.log(end), now, equal_var=False, trim=TRIM)
        assert test.pvalue == pytest.approx(1 - confidence, abs=1e-9)
