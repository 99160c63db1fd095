"""What is a regression and what is not: rows of `compare` over made-up runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import ELSEWHERE, IMAGES, answers, made

from vitcompress.core.bits import packed
from vitcompress.core.measured_records import GateRow
from vitcompress.pipeline.check.baseline import Baseline, baseline_of, load_baseline, text_of
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.differences import foreign, notes
from vitcompress.pipeline.check.limits import compare
from vitcompress.pipeline.report.shape import Report
from vitcompress.stages.gates.gate import passed

ENGINE = "tensorrt-rtx-fp16"


def read(report: dict[str, Any]) -> Baseline:
    return baseline_of(Report.model_validate_json(json.dumps(report)), Path("report.json"))


def side(**changes: Any) -> Baseline:
    return read(made(**changes))


BEFORE = side()
BARE = BEFORE.model_copy(update={"recommended": {"onnx": "onnx-fp32", "engine": None}})


def rows(now: Baseline, before: Baseline = BEFORE, **limits: Any) -> dict[tuple[str, str], GateRow]:
    return {(row.artifact, row.gate): row for row in compare(CheckConfig(**limits), before, now)[0]}


def row_of(limit: str, now: Baseline, before: Baseline = BEFORE, **limits: Any) -> GateRow:
    """The row of the recommended ONNX file."""
    return rows(now, before, **limits)["onnx (fp32)", limit]


def test_the_latency_itself_is_judged_on_the_baselines_hardware_alone() -> None:
    slower, elsewhere, nowhere = side(machine=1.3, seed=2), side(hardware=ELSEWHERE), side(hardware=None)
    assert row_of("max_latency_growth", slower, max_latency_growth=5.0).verdict == "fail"
    assert row_of("max_latency_growth", side(), max_latency_growth=5.0).verdict == "pass"
    for now, before in ((elsewhere, BEFORE), (nowhere, nowhere)):
        row = row_of("max_latency_growth", now, before, max_latency_growth=5.0)
        assert (row.verdict, row.required) == ("unmeasured", False)
        assert "latencies of two machines are not compared" in row.why
    assert any("on 2 threads in the baseline and on 8 here" in note for note in notes(BEFORE, elsewhere))


def throttled(tmp_path: Path, **changes: Any) -> Baseline:
    """A run whose student was slowed down by its GPU, as it comes back from a file."""
    report = made(**changes)
    card = dict.fromkeys(("sm_mhz", "memory_mhz", "celsius", "processes", "busy_before", "idle_watts"))
    card |= {"readings": 9, "limited": {}, "disturbed": "the GPU was throttled"}
    for row in report["latency"]:
        row["card"] = None if row["model"] == "teacher" else card
    path = tmp_path / "baseline.json"
    path.write_text(text_of(read(report)))
    return load_baseline(path)


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_on_a_throttled_gpu_no_latency_is_judged_on_either_side(tmp_path: Path, slower: float) -> None:
    hot = throttled(tmp_path, slower=slower, seed=2)
    for now, before, which in ((hot, BEFORE, "this run"), (side(slower=slower, seed=2), hot, "the baseline")):
        found = rows(now, before, max_latency_growth=5.0)
        for limit in ("max_slowdown", "max_latency_growth"):
            row = found["onnx (fp32)", limit]
            assert (row.verdict, f"in {which} the GPU was throttled" in row.why) == ("inconclusive", True)
        assert found["onnx (fp32)", "max_accuracy_loss"].verdict == "pass"
    assert "disturbed" not in text_of(BEFORE).replace('"disturbance"', "")


@pytest.mark.parametrize(
    ("limits", "gates"),
    [
        ({"max_growth": 1.0}, ["accuracy_loss", "slowdown", "growth"]),
        ({"max_accuracy_loss": None}, ["slowdown"]),
        ({"max_accuracy_loss": None, "max_slowdown": None}, []),
    ],
)
def test_the_run_that_the_baseline_was_made_of_passes_every_limit_that_is_set(
    limits: dict[str, Any], gates: list[str]
) -> None:
    found = rows(side(), artifacts=("onnx",), **limits).values()
    assert [(row.gate, row.verdict) for row in found] == [(f"max_{gate}", "pass") for gate in gates]


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


@pytest.mark.parametrize(("slower", "wanted"), [(1.1, "fail"), (1.03, "inconclusive"), (0.8, "pass")])
def test_slowdown_is_judged_on_its_interval(slower: float, wanted: str) -> None:
    row = row_of("max_slowdown", side(slower=slower, seed=2))
    assert row.verdict == wanted
    assert row.value == pytest.approx(100 * (slower - 1), abs=1.0)


def test_a_slower_machine_is_no_regression_and_is_told() -> None:
    now = side(machine=3.0, seed=2, hardware=ELSEWHERE)
    assert row_of("max_slowdown", now).verdict == "pass"
    told = notes(BEFORE, now)[0]
    assert "this run on Another processor (8 cores, 8 threads)" in told
    assert notes(BEFORE, side()) == []


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
    found = rows(now, artifacts=("onnx", "onnx-int8")).values()
    assert [(row.verdict, row.required) for row in found] == [("unmeasured", True)] * 2
    assert {row.why for row in found} == {"this run has no measurement of onnx-fp32, which the baseline has"}
    assert passed(list(rows(now, artifacts=("onnx",), require=()).values()))


def test_a_changed_recommendation_is_compared_like_with_like_and_told() -> None:
    now = side(bundle={"onnx": "fp16"})
    found = rows(now, artifacts=("onnx",))
    assert [key[0] for key in found] == ["onnx (fp32)"] * 2 + ["onnx (fp16)"] * 2
    assert [(row.verdict, row.required) for row in found.values()] == [("pass", True)] * 2 + [("pass", False)] * 2
    assert notes(BEFORE, now) == ["The recommended ONNX file was onnx-fp32 in the baseline and is onnx-fp16."]


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
    found = rows(now, before, artifacts=("engine",), require=("engine",)).values()
    assert [(row.artifact, row.verdict, row.required) for row in found] == [(artifact, "unmeasured", True)] * 2
    told = [f"engine ({ENGINE}) was measured neither in the baseline nor in this run."] * (artifact != "engine")
    assert compare(CheckConfig(artifacts=("engine",), require=()), before, now) == ((), told)


def test_what_cannot_be_timed_is_unmeasured_with_its_reason() -> None:
    single = row_of("max_slowdown", side(sessions=1))
    assert "this run has 1 timing session of onnx-fp32 and 1 of its teacher; 2 are the fewest" in single.why
    gpu = BEFORE.artifacts["onnx-fp32"].model_copy(update={"provider": "CUDAExecutionProvider"})
    moved = row_of("max_slowdown", BEFORE.model_copy(update={"artifacts": {"onnx-fp32": gpu}}))
    engine = BEFORE.artifacts["onnx-fp16"].model_copy(update={"provider": ""})
    both = BEFORE.model_copy(update={"artifacts": {**BEFORE.artifacts, ENGINE: engine}})
    alone = rows(both, both)[f"engine ({ENGINE})", "max_slowdown"]
    assert [row.verdict for row in (single, moved, alone)] == ["unmeasured"] * 3
    assert "this run with CUDAExecutionProvider" in moved.why
    assert f"{ENGINE} and 0 of its teacher" in alone.why


def test_an_engine_is_compared_with_the_teachers_engine_in_the_same_precision() -> None:
    def with_engines(speed: float) -> Baseline:
        """The fp16 engine takes ``speed`` times as long as the graph, its teacher's as long as the teacher's graph."""
        times = BEFORE.artifacts["onnx-fp16"].session_p50_ms
        own = BEFORE.artifacts["onnx-fp16"].model_copy(
            update={"session_p50_ms": {"1": tuple(speed * ms for ms in times["1"])}}
        )
        teacher = {**BEFORE.teacher, ENGINE: BEFORE.teacher["onnx"]}
        return BEFORE.model_copy(update={"artifacts": {**BEFORE.artifacts, ENGINE: own}, "teacher": teacher})

    same, slower = (rows(with_engines(speed), with_engines(1.0)) for speed in (1.0, 1.3))
    assert same[f"engine ({ENGINE})", "max_slowdown"].verdict == "pass"
    row = slower[f"engine ({ENGINE})", "max_slowdown"]
    assert (row.verdict, row.value) == ("fail", pytest.approx(30.0))


@pytest.mark.parametrize(
    ("slower", "then", "now", "expected"),
    [
        (1.05, 0.0, None, "fail"),  # unknown: nothing speaks for others
        (1.05, 0.0, 0.5, "inconclusive"),
        (1.05, 0.5, 0.0, "inconclusive"),
        (1.10, 0.5, 0.5, "fail"),
    ],
)
def test_a_busy_machine_is_not_taken_for_a_slow_student(
    slower: float, then: float, now: float | None, expected: str
) -> None:
    row = row_of("max_slowdown", side(slower=slower, disturbance=now, seed=2), side(disturbance=then))
    assert row.verdict == expected
    assert ("other processes took 50%" in row.why) == (expected == "inconclusive")


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


def test_another_teacher_is_told() -> None:
    report, other = made(), answers("another", 0.9)
    for row in report["accuracy"]:
        if (row["model"], row["runtime"]) == ("teacher", "torch"):
            row |= {"right": packed(other), "top1": float(100 * other.mean())}
    (told,) = notes(BEFORE, read(report))
    assert "it is not the same teacher" in told
