"""A target of another package goes the whole way: built, verified, reported, judged, bundled, predicted, examined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import in_process
from pretend_target import PretendTarget, installed

from vitcompress.pipeline.report.schema import load_report

SETTINGS = (
    "gates.max_accuracy_drop=100", "gates.artifacts=[onnx, pretend-fp32]", "gates.require=[pretend-fp32]",
    "gates.min_speedup=0.0001", "gates.min_speedup_deployed=0.0001",
    "verify.memory=false",  # measured in a process of its own, where nothing of this test is installed
)  # fmt: skip


@pytest.fixture
def exported(run_copy: Path, exported_before: None) -> Iterator[Path]:
    with installed(PretendTarget):
        words = ("--target", "onnx,pretend", "--precision", "fp32")
        done = in_process("export", run_copy, *words)
        assert done.code == 0, done.err
        judged = in_process("verify", run_copy, *(word for one in SETTINGS for word in ("--set", one)))
        assert judged.code == 0, judged.err
        yield run_copy


def test_a_target_of_another_package_goes_the_whole_way(exported: Path, digits_folder: Path) -> None:
    report = load_report(exported)
    _, row = (one for one in report["models"] if one["runtime"] == "pretend")
    (graph,) = (one for one in report["models"] if one["deployed"])
    assert row["top1"]["value"] == graph["top1"]["value"]
    assert row["latency"]["1"]["p50_ms"]["value"] > 0
    assert row["latency"]["1"]["speedup_against"] == "fp32"
    gates = {one["gate"]: one for one in report["gates"] if one["artifact"] == "pretend-fp32"}
    assert (gates["max_accuracy_drop"]["verdict"], gates["max_accuracy_drop"]["required"]) == ("pass", True)
    manifest = json.loads((exported / "bundle" / "manifest.json").read_text())
    assert [one["runtime"] for one in manifest["models"]] == ["onnx", "pretend"]
    images = sorted(digits_folder.rglob("*.png"))[:2]
    said = [in_process("predict", exported / "bundle", *images, "--model", model) for model in ("onnx", "pretend fp32")]
    assert [one.code for one in said] == [0, 0], said[1].err
    assert said[0].out == said[1].out
    assert "ok       pretend (Pretend Runtime): numpy is installed" in in_process("doctor").out
    assert "broken" not in in_process("doctor", exported).out.partition("bundle")[2]


def test_an_engine_is_judged_against_the_teachers_engine_which_is_built_once(exported: Path) -> None:
    report = load_report(exported)
    teacher, student = (one for one in report["models"] if one["runtime"] == "pretend")
    (of_teacher,) = report["artifacts"]["teacher_engines"]
    assert (teacher["model"], teacher["bytes"]) == ("teacher", of_teacher["file"]["bytes"])
    in_torch = next(one for one in report["models"] if (one["model"], one["runtime"]) == ("teacher", "torch"))
    assert teacher["top1"]["value"] == pytest.approx(in_torch["top1"]["value"])
    assert teacher["ece"]["value"] is not None
    speedups = [student["latency"]["1"][name] for name in ("speedup", "speedup_deployed")]
    assert all(one["low"] <= one["value"] <= one["high"] for one in speedups)
    (reference,) = (one for one in report["teacher_references"] if one["batch"] == 1)
    assert {one["runtime"] for one in reference["among"]} == {"torch", "onnx", "pretend"}
    assert reference["teacher"]["p50_ms"] == min(one["p50_ms"] for one in reference["among"])

    def verdicts() -> set[tuple[str, str]]:
        rows = [one for one in load_report(exported)["gates"] if one["artifact"] == "pretend-fp32"]
        return {(row["gate"], row["verdict"]) for row in rows if row["gate"].startswith("min_speedup")}

    assert verdicts() == {("min_speedup", "pass"), ("min_speedup_deployed", "pass")}
    PretendTarget.built.clear()
    out_of_reach = ("--set", "gates.min_speedup=1e9", "--set", "gates.min_speedup_deployed=1e9")
    assert in_process("verify", exported, *out_of_reach).code == 1
    assert verdicts() == {("min_speedup", "fail"), ("min_speedup_deployed", "fail")}
    assert PretendTarget.built == []
    assert in_process("export", exported).code == 1
    assert PretendTarget.built == ["student-lift-folded"]


def test_without_the_package_its_run_is_told_what_is_missing(exported: Path) -> None:
    """The report stays; what would run the artifact says so."""
    with installed():
        done = in_process("verify", exported, "--set", "verify.memory=false")
    assert done.code in (1, 2)
    assert "pretend" in done.out + done.err
    assert "internal" not in done.err
