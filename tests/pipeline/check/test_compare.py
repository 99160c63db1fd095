"""What is a regression and what is not: rows of `compare` over made-up runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import ELSEWHERE, IMAGES, answers, made
from scipy.stats import ttest_ind

from vitcompress.core.artifact_records import GateRow
from vitcompress.exporters.latency import change_interval
from vitcompress.exporters.latency.statistics import TRIM
from vitcompress.pipeline.check.baseline import Baseline
from vitcompress.pipeline.check.compare import compare, uncompared
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.measured import baseline_of
from vitcompress.pipeline.check.same import foreign, notes
from vitcompress.pipeline.check.verdict import cause, verdict, worded
from vitcompress.stages.training.accuracy import paired_drop

EVERYTHING: dict[str, Any] = {"max_latency_growth": 5.0, "max_growth": 1.0}


def side(**changes: Any) -> Baseline:
    return baseline_of(made(**changes), Path("report.json"))


BEFORE = side()


def rows(now: Baseline, before: Baseline = BEFORE, **limits: Any) -> dict[tuple[str, str], GateRow]:
    return {(row.artifact, row.gate): row for row in compare(CheckConfig(**limits), before, now)}


def test_the_run_that_the_baseline_was_made_of_passes() -> None:
    found = compare(CheckConfig(artifacts=("onnx",), **EVERYTHING), BEFORE, side())
    assert [(row.gate, row.verdict) for row in found] == [
        ("max_accuracy_loss", "pass"),
        ("max_slowdown", "pass"),
        ("max_latency_growth", "pass"),
        ("max_growth", "pass"),
    ]
    assert verdict(found)["word"] == "PASS"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "pass"),
        ({"lost": 40}, "fail"),
        ({"lost": 2}, "inconclusive"),  # more than none, and too few to tell from chance
        ({"swapped": 30}, "inconclusive"),  # other answers, as many right: no loss, no proof of none
    ],
)
def test_accuracy_is_compared_image_by_image(changes: dict[str, int], wanted: str) -> None:
    row = rows(side(**changes))["onnx (fp32)", "max_accuracy_loss"]
    assert row.verdict == wanted
    assert row.value == pytest.approx(100 * changes.get("lost", 0) / IMAGES)


def test_a_small_loss_passes_below_a_larger_limit() -> None:
    row = rows(side(lost=2), max_accuracy_loss=2.0)["onnx (fp32)", "max_accuracy_loss"]
    assert (row.verdict, row.low is not None and row.low < 0.2 < (row.high or 0)) == ("pass", True)


@pytest.mark.parametrize(("slower", "wanted"), [(1.0, "pass"), (1.1, "fail"), (1.03, "inconclusive"), (0.8, "pass")])
def test_slowdown_is_judged_on_its_interval(slower: float, wanted: str) -> None:
    row = rows(side(slower=slower, seed=2))["onnx (fp32)", "max_slowdown"]
    assert row.verdict == wanted
    assert row.value == pytest.approx(100 * (slower - 1), abs=1.0)


def test_a_slower_machine_is_no_regression_and_is_told() -> None:
    now = side(machine=3.0, seed=2, hardware=ELSEWHERE)
    found = rows(now, max_latency_growth=5.0)
    assert found["onnx (fp32)", "max_slowdown"].verdict == "pass"
    absolute = found["onnx (fp32)", "max_latency_growth"]
    assert (absolute.verdict, absolute.required) == ("unmeasured", False)
    assert "measured on A processor (2 cores, 2 threads), this run on Another processor" in absolute.why
    told = notes(BEFORE, now)
    assert "this run on Another processor (8 cores, 8 threads)" in told[0]
    assert "Models ran on 2 threads in the baseline and on 8 here" in told[1]
    assert notes(BEFORE, side()) == []


def test_on_the_same_machine_the_latency_itself_is_judged() -> None:
    found = rows(side(machine=1.3, seed=2), max_latency_growth=5.0)
    assert found["onnx (fp32)", "max_slowdown"].verdict == "pass"
    assert found["onnx (fp32)", "max_latency_growth"].verdict == "fail"


def test_unknown_hardware_is_never_the_same() -> None:
    nowhere = side(hardware=None)
    assert rows(nowhere, nowhere, max_latency_growth=5.0)["onnx (fp32)", "max_latency_growth"].verdict == "unmeasured"


def test_size_is_exact() -> None:
    report = made()
    for row in report["models"]:
        row["bytes"] = row["bytes"] and int(row["bytes"] * 1.02)
    now = baseline_of(report, Path("report.json"))
    row = rows(now, max_growth=1.0)["onnx (fp32)", "max_growth"]
    assert (row.verdict, row.low) == ("fail", None)
    assert row.value == pytest.approx(2.0, abs=1e-4)
    assert rows(now, max_growth=5.0)["onnx (fp32)", "max_growth"].verdict == "pass"


def test_an_artifact_that_the_run_lacks_fails_where_it_is_required() -> None:
    now = side()
    now = now.model_copy(update={"artifacts": {"onnx-fp16": now.artifacts["onnx-fp16"]}})
    found = compare(CheckConfig(artifacts=("onnx", "onnx-int8")), BEFORE, now)
    assert {row.verdict for row in found} == {"unmeasured"}
    assert [row.required for row in found] == [True, True]
    said = verdict(found)
    assert (said["word"], said["exit_code"]) == ("FAIL", 1)
    assert "this run has no measurement of onnx-fp32, which the baseline has" in cause(worded(found[0], 1))


def test_a_changed_recommendation_is_compared_like_with_like_and_told() -> None:
    now = side(bundle={"onnx": "fp16"})
    found = rows(now, artifacts=("onnx",))
    assert [key[0] for key in found] == ["onnx (fp32)"] * 2 + ["onnx (fp16)"] * 2
    assert {row.verdict for row in found.values()} == {"pass"}
    assert [row.required for row in found.values()] == [True, True, False, False]
    assert notes(BEFORE, now) == ["The recommended ONNX file was onnx-fp32 in the baseline and is onnx-fp16."]


def test_all_is_what_either_side_has_and_each_is_compared_once() -> None:
    found = compare(CheckConfig(artifacts=("all",), max_slowdown=None), BEFORE, side(bundle={"onnx": "fp16"}))
    assert [row.artifact for row in found] == ["onnx (fp32)", "onnx (fp16)"]
    named = compare(CheckConfig(artifacts=("all",), require=("onnx-fp16",), max_slowdown=None), BEFORE, side())
    assert [(row.artifact, row.required) for row in named] == [("onnx-fp16", True), ("onnx-fp32", False)]


def test_an_engine_that_was_never_measured_is_told_once_unless_required() -> None:
    assert {key[0] for key in rows(side())} == {"onnx (fp32)"}
    told = "engine (tensorrt-rtx-fp16) was measured neither in the baseline nor in this run, so it is not compared."
    assert uncompared(CheckConfig(), BEFORE, side()) == [told]
    required = compare(CheckConfig(require=("engine",)), BEFORE, side())
    assert [row.verdict for row in required if row.required] == ["unmeasured", "unmeasured"]
    assert uncompared(CheckConfig(require=("engine",)), BEFORE, side()) == []


def test_a_required_role_that_nothing_fills_fails() -> None:
    bare = BEFORE.model_copy(update={"recommended": {"onnx": "onnx-fp32", "engine": None}})
    config = CheckConfig(artifacts=("engine",), require=("engine",))
    found = compare(config, bare, bare)
    assert [(row.artifact, row.verdict, row.required) for row in found] == [("engine", "unmeasured", True)] * 2
    assert verdict(found, limited=True)["exit_code"] == 1
    assert compare(CheckConfig(artifacts=("engine",), require=()), bare, bare) == ()


def test_a_required_role_that_the_baseline_leaves_empty_fails() -> None:
    bare = BEFORE.model_copy(update={"recommended": {"onnx": "onnx-fp32", "engine": None}})
    found = compare(CheckConfig(artifacts=("engine",), require=("engine",)), bare, BEFORE)
    assert [(row.artifact, row.required) for row in found] == [("engine (tensorrt-rtx-fp16)", True)] * 2


@pytest.mark.parametrize(
    ("limited", "said"), [(False, "no limit was set"), (True, "has an artifact that check.artifacts names")]
)
def test_why_nothing_was_compared(limited: bool, said: str) -> None:
    found = verdict((), limited=limited)
    assert (found["word"], found["exit_code"]) == ("DONE", 0)
    assert said in found["why"]


def test_an_interval_beyond_all_numbers_is_unmeasured() -> None:
    far = BEFORE.artifacts["onnx-fp32"].model_copy(update={"session_p50_ms": {"1": (1e-6, 1e9)}})
    teacher = {
        **BEFORE.teacher,
        "onnx": BEFORE.teacher["onnx"].model_copy(update={"session_p50_ms": {"1": (1.0, 1.0)}}),
    }
    two = BEFORE.model_copy(update={"artifacts": {"onnx-fp32": far}, "teacher": teacher})
    config = CheckConfig(artifacts=("onnx",), max_accuracy_loss=None, confidence=0.9999)
    (row,) = compare(config, two, two)
    assert (row.verdict, row.required) == ("unmeasured", True)
    assert "measure again, for longer" in row.why


def test_an_engines_slowdown_is_relative_to_nothing() -> None:
    engine = BEFORE.artifacts["onnx-fp16"].model_copy(update={"provider": ""})
    both = BEFORE.model_copy(update={"artifacts": {**BEFORE.artifacts, "tensorrt-rtx-fp16": engine}})
    found = rows(both, both, max_latency_growth=1.0)
    row = found["engine (tensorrt-rtx-fp16)", "max_slowdown"]
    assert (row.verdict, row.required) == ("unmeasured", False)
    assert "no engine is built of the teacher" in row.why
    assert found["engine (tensorrt-rtx-fp16)", "max_latency_growth"].value == 0


def test_what_cannot_be_timed_is_unmeasured_with_its_reason() -> None:
    other = rows(side(), batch=4)["onnx (fp32)", "max_slowdown"]
    assert other.why == "the baseline has no times of onnx-fp32 at batch 4 (only at 1, 8)"
    single = rows(side(sessions=1))["onnx (fp32)", "max_slowdown"]
    assert single.why == "10 and 1 sessions were timed; 2 on each side are the fewest"
    before = side()
    gpu = before.artifacts["onnx-fp32"].model_copy(update={"provider": "CUDAExecutionProvider"})
    moved = before.model_copy(update={"artifacts": {**before.artifacts, "onnx-fp32": gpu}})
    found = rows(moved, **EVERYTHING)
    for limit in ("max_slowdown", "max_latency_growth"):
        assert "CUDAExecutionProvider" in found["onnx (fp32)", limit].why
        assert found["onnx (fp32)", limit].value is None


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
    found = rows(after, before, max_latency_growth=3.0)
    for limit in ("max_slowdown", "max_latency_growth"):
        row = found["onnx (fp32)", limit]
        if limit == "max_slowdown":
            assert row.verdict == expected
        assert ("other processes took 50%" in row.why) == (row.verdict == "inconclusive" and row.low > row.limit)  # type: ignore[operator]
    told = [note for note in notes(before, after) if "counts from 3 points beyond its limit" in note]
    assert len(told) == [then, now].count(0.5)


@pytest.mark.parametrize(
    ("limits", "gates"),
    [
        ({"max_accuracy_loss": None}, ["max_slowdown"]),
        ({"max_slowdown": None}, ["max_accuracy_loss"]),
        ({"max_accuracy_loss": None, "max_slowdown": None}, []),
    ],
)
def test_a_limit_that_is_null_is_not_judged(limits: dict[str, None], gates: list[str]) -> None:
    found = compare(CheckConfig(artifacts=("onnx",), **limits), BEFORE, side())  # type: ignore[arg-type]
    assert [row.gate for row in found] == gates
    assert verdict(found)["word"] == ("PASS" if gates else "DONE")


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
    ],
)
def test_other_images_classes_or_networks_are_foreign(changes: dict[str, Any], said: list[str]) -> None:
    assert foreign(BEFORE, side(**changes)) == said
    assert foreign(BEFORE, side(seed=9, lost=7)) == []


def test_another_teacher_is_told() -> None:
    report = made()
    other = answers("another", 0.9)
    for row in report["accuracy"]:
        if (row["model"], row["runtime"]) == ("teacher", "torch"):
            from vitcompress.core.bits import packed

            row |= {"right": packed(other), "top1": float(100 * other.mean())}
    told = notes(BEFORE, baseline_of(report, Path("report.json")))
    assert len(told) == 1
    assert "it is not the same teacher" in told[0]


def test_a_failure_is_named_in_one_line() -> None:
    accuracy = cause(worded(rows(side(lost=40))["onnx (fp32)", "max_accuracy_loss"], 1))
    assert accuracy.startswith("FAIL onnx (fp32): 4 points [")
    assert accuracy.endswith("of top-1 lost against the baseline, on the same images; limit 0 points.")
    latency = cause(worded(rows(side(slower=1.2, seed=2))["onnx (fp32)", "max_slowdown"], 1))
    assert latency.startswith("FAIL onnx (fp32): ")
    assert latency.endswith("slower against the teacher than the baseline; limit 3 %.")
    assert "\n" not in accuracy + latency


times = st.lists(st.floats(-1, 1), min_size=2, max_size=24).map(np.array)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.98])
@pytest.mark.parametrize(("many", "more"), [(10, 10), (20, 12), (20, 20), (7, 19), (23, 30)])
def test_the_interval_is_yuens(many: int, more: int, confidence: float) -> None:
    rng = np.random.default_rng([many, more])
    before, now = rng.normal(1.5, 0.02, many), rng.normal(1.4, 0.01, more)
    now[0] -= 0.5
    ratio, low, high = change_interval(before, now, confidence)
    assert low < ratio < high
    for end in (low, high):
        test = ttest_ind(before - math.log(end), now, equal_var=False, trim=TRIM)
        assert test.pvalue == pytest.approx(1 - confidence, abs=1e-9)


@given(times.filter(lambda some: len(some) < 10), times.filter(lambda some: len(some) < 10))
@settings(deadline=None)
def test_with_few_sessions_it_is_welchs(before: np.ndarray, now: np.ndarray) -> None:
    ratio, low, high = change_interval(before, now, 0.98)
    assert ratio == pytest.approx(math.exp(before.mean() - now.mean()))
    if min(before.std(), now.std()) > 1e-3:  # scipy warns of less
        wanted = ttest_ind(before, now, equal_var=False).confidence_interval(0.98)
        assert (math.log(low), math.log(high)) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_a_session_in_a_storm_changes_little() -> None:
    quiet = np.random.default_rng(0).normal(1.5, 0.01, 20)
    stormy = quiet.copy()
    stormy[[3, 11]] -= 0.2
    calm, struck = (change_interval(quiet + 0.05, now, 0.98) for now in (quiet, stormy))
    assert struck[0] == pytest.approx(calm[0], abs=0.005)
    assert struck[2] - struck[1] < 1.5 * (calm[2] - calm[1])


def test_a_higher_confidence_gives_a_wider_paired_interval() -> None:
    one, other = answers("one", 0.9), answers("other", 0.88)
    narrow, wide = paired_drop(one, other), paired_drop(one, other, 0.98)
    assert narrow == paired_drop(one, other, 0.95)
    assert wide[0] == narrow[0]
    assert wide[1] < narrow[1] < narrow[2] < wide[2]


@pytest.mark.parametrize("now", [None, ("tensorrt-rtx", "fp16")])
def test_a_required_role_that_the_baseline_has_nothing_for_fails(now: tuple[str, str] | None) -> None:
    before = side(bundle={"engine": None})
    found = compare(CheckConfig(require=("engine",)), before, side(bundle={"engine": now}))
    engine = [row for row in found if row.artifact.startswith("engine")]
    assert [(row.verdict, row.required) for row in engine] == [("unmeasured", True)] * 2
    assert verdict(found)["exit_code"] == 1


def test_where_nothing_was_measured_nothing_passed() -> None:
    left = BEFORE.model_copy(update={"artifacts": {}})
    found = compare(CheckConfig(artifacts=("onnx",), require=()), BEFORE, left)
    assert {row.verdict for row in found} == {"unmeasured"}
    assert (verdict(found)["word"], verdict(found)["exit_code"]) == ("UNDECIDED", 0)
