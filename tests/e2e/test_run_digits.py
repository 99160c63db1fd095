"""One tiny run on the embedded digits, and what can be asked of it afterwards."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import in_process
from running import Finished, as_process

from vitcompress.core.artifact_records import ExportRecord
from vitcompress.core.records import DataRecord, DistillRecord, StudentRecord, TeacherRecord
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.tensorrt import installed_flavours
from vitcompress.pipeline.plan import STAGES
from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.images.sources import recorded_images

RTX = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")


RAN = [stage for stage in STAGES if stage.name != "qat"]  # int8-qat is not asked for
SHOWN = [stage.name for stage in RAN if stage.name != "control"]
"""Stages that the run is asked for."""


def record_of(root: Path, stage: str, kind: Any) -> Any:
    return kind.model_validate_json((root / "records" / f"{stage}.json").read_text())


def times(root: Path) -> dict[str, str]:
    """When each stage's record was written."""
    return {stage.name: str((root / "records" / f"{stage.name}.json").stat().st_mtime_ns) for stage in RAN}


def test_every_stage_ran_and_nothing_alarming_was_printed(finished: Finished) -> None:
    state = json.loads((finished.root / "state.json").read_text())
    assert [state["stages"][stage.name]["status"] for stage in RAN] == ["done"] * len(RAN)
    assert not re.search(r"warning|traceback|error", finished.result.err, re.IGNORECASE), finished.result.err
    assert finished.result.out.count("reduced geometry") == 1  # with the figures that it is about
    assert [line.split()[0] for line in finished.result.err.splitlines()] == ["run", *SHOWN]  # one line a stage
    assert (finished.root / "report" / "report.md").read_text().count("reduced geometry") == 1
    assert "auto" not in (finished.root / "config.yaml").read_text().replace("auto_augment", "")


def test_report_has_accuracy_latency_and_both_lift_graphs(finished: Finished) -> None:
    report = load_report(finished.root)
    assert report["verdict"]["passed"] is True
    assert report["training"]["control"] is None
    rows = {(row["model"], row["runtime"]): row for row in report["models"] if row["precision"] == "fp32"}
    for key in (("teacher", "torch"), ("teacher", "onnx"), ("lift-kept", "onnx"), ("lift-folded", "onnx")):
        assert 0 < rows[key]["top1"]["value"] <= 100
    kept, folded = rows["lift-kept", "onnx"], rows["lift-folded", "onnx"]
    assert folded["parameters"] < kept["parameters"]
    assert folded["latency"]
    assert folded["top1"]["value"] == pytest.approx(kept["top1"]["value"], abs=0.6)
    page = (finished.root / "report" / "report.html").read_text()
    assert page.count("data:image/webp;base64,") >= 5  # figures of the analysis
    assert f"report   {finished.root / 'report' / 'report.html'}\n" in finished.result.out


def test_second_run_recomputes_nothing_and_needs_no_torch(finished: Finished) -> None:
    before = times(finished.root)
    again = as_process(*finished.arguments, "--output", finished.root, python=("-X", "importtime"))
    modules = {line.rpartition("|")[2].strip() for line in again.err.splitlines() if line.startswith("import time:")}
    assert again.code == 0
    assert "nothing to recompute" in again.err
    assert "vitcompress.pipeline.run" in modules
    assert not modules & {"torch", "timm", "onnx", "onnxruntime", "tensorrt_rtx", "sklearn"}
    assert again.out == finished.result.out
    assert times(finished.root) == before


def test_a_deleted_page_is_written_again_and_nothing_else(finished: Finished, run_copy: Path) -> None:
    before, report = times(run_copy), load_report(run_copy)
    page = run_copy / "report" / "report.html"
    page.unlink()
    assert in_process(*finished.arguments, "--output", run_copy).code == 0
    assert times(run_copy) == before
    assert page.is_file()
    assert load_report(run_copy)["models"] == report["models"]


def test_bundle_edited_by_hand_is_made_again_and_the_student_is_not_trained_again(
    finished: Finished, run_copy: Path
) -> None:
    before = times(run_copy)
    with (run_copy / "bundle" / "labels.txt").open("a") as file:
        file.write("eleven\n")
    assert in_process(*finished.arguments, "--output", run_copy).code == 0
    open_bundle(run_copy / "bundle")
    after = times(run_copy)
    assert {name for name in before if before[name] != after[name]} <= {"bundle", "gates"}


@pytest.mark.usefixtures("exported_before")
def test_export_keep_then_verify_reuse_the_trained_student_even_in_a_moved_run(run_copy: Path) -> None:
    before = times(run_copy)
    exported = in_process("export", run_copy, "--projector", "keep", "--target", "onnx", "--precision", "fp16")
    assert exported.code == 0, exported.err
    assert {name for name, time in times(run_copy).items() if before[name] != time} == {
        "export", "verify", "bundle", "gates",
    }  # fmt: skip
    assert "distill  reused" in exported.err
    bundle = open_bundle(run_copy / "bundle")
    assert {(model.runtime, model.precision) for model in bundle.models} == {("onnx", "fp32"), ("onnx", "fp16")}
    assert "student lift-kept" in exported.out
    verified = in_process("verify", run_copy, "--set", "gates.min_accuracy=100")
    assert verified.code == 1, verified.err
    verdict = load_report(run_copy)["verdict"]
    assert (verdict["passed"], verdict["exit_code"]) == (False, 1)


def test_single_steps_refuse_what_is_not_theirs(finished: Finished) -> None:
    state = (finished.root / "state.json").read_bytes()
    refused = in_process("verify", finished.root, "--set", "export.max_batch=8")
    assert refused.code == 2
    assert "can change settings of" in refused.err
    assert (finished.root / "state.json").read_bytes() == state


def test_single_steps_never_train(finished: Finished, run_copy: Path) -> None:
    weights = run_copy / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    refused = in_process("verify", run_copy)
    assert refused.code == 2
    assert "stage 'distill' cannot be used" in refused.err
    assert "compress run" in refused.err


def test_predict_agrees_with_the_report(finished: Finished, tmp_path: Path) -> None:
    data = record_of(finished.root, "data", DataRecord)
    held_out = recorded_images(data)[1].val
    labels = {}
    for index in range(len(held_out)):
        image, label = held_out[index]
        image.save(tmp_path / f"digit {index}.png")
        labels[f"digit {index}.png"] = str(label)
    done = in_process("predict", finished.root / "bundle", tmp_path, "--json")
    assert done.code == 0
    answers = [json.loads(line) for line in done.out.splitlines()]
    right = sum(labels[Path(answer["path"]).name] == answer["labels"][0]["label"] for answer in answers)
    reported = next(row["top1"]["value"] for row in load_report(finished.root)["models"] if row["deployed"])
    assert len(answers) == len(labels)
    assert 100 * right / len(labels) == pytest.approx(reported, abs=0.3)
    assert right / len(labels) > 0.15  # ten classes: it learned something


@RTX
def test_every_precision_and_engine_is_made_measured_or_has_its_reason(finished: Finished) -> None:
    export = record_of(finished.root, "export", ExportRecord)
    assert set(export.reduced) | set(export.missing) == {"fp16", "int8"}
    for engines in (export.engines, export.teacher_engines):
        assert [(one.flavour, one.precision, one.status) for one in engines] == [("tensorrt-rtx", "fp16", "built")]
    rows = {
        (row["model"] == "teacher", row["runtime"], row["precision"]): row
        for row in load_report(finished.root)["models"]
    }
    for precision in ("fp32", "fp16", "int8"):
        assert rows[False, "onnx", precision]["top1"]["value"] is not None
    # int8 has no graph of the teacher to compare with here, and its row says so.
    against = [rows[False, "onnx", one]["latency"]["1"]["speedup_against"] for one in ("fp32", "fp16", "int8")]
    assert against == ["fp32", "fp16", "fp32"]
    for of_teacher in (True, False):
        assert "needs an NVIDIA GPU" in rows[of_teacher, "tensorrt-rtx", "fp16"]["top1"]["reason"]


def test_a_second_process_is_kept_out(finished: Finished) -> None:
    from vitcompress.core.rundir import RunDirectory

    state = (finished.root / "state.json").read_bytes()
    with RunDirectory(finished.root).locked():
        refused = in_process(*finished.arguments, "--output", finished.root)
    assert refused.code == 2
    assert "in use by another process" in refused.err
    assert (finished.root / "state.json").read_bytes() == state


def test_a_refused_change_leaves_the_finished_run_usable(finished: Finished, run_copy: Path) -> None:
    bad = in_process(*finished.arguments, "--output", run_copy, "--teacher-weights", os.devnull)
    assert bad.code == 2
    good = in_process(*finished.arguments, "--output", run_copy)
    assert good.code == 0
    assert "nothing to recompute" in good.err


def test_a_dry_run_foretells_the_run_and_leaves_it_alone(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.pipeline.dry_run_steps._LOADING_SECONDS", 0.02)
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")}
    told = in_process(*finished.arguments, "--output", finished.root, "--dry-run")
    assert told.code == 0, told.err
    tables, _, config = told.out.partition("# config.yaml would hold:\n")
    assert yaml.safe_load(config) == yaml.safe_load((finished.root / "config.yaml").read_text())
    assert f"{record_of(finished.root, 'distill', DistillRecord).steps:,} (" in tables
    for name, kind in (("teacher", TeacherRecord), ("student", StudentRecord)):
        assert f"{record_of(finished.root, name, kind).cost.parameters:,}" in tables
    assert "Time of all of this: about" in tables
    assert "holds this run already" in " ".join(tables.split())
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")} == before
