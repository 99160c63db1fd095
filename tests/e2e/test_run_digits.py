"""One tiny run on the embedded digits, and what can be asked of it afterwards."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from running import Finished, as_process, in_process
from sklearn.datasets import load_digits

from vitcompress.core.artifact_records import ExportRecord
from vitcompress.core.records import DataRecord, FoldRecord
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.tensorrt import engine_from_onnx, installed_flavours, load_tensorrt
from vitcompress.pipeline.plan import STAGES
from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own

FP32 = ("--set", "export.target=onnx", "--set", "export.precision=fp32", "--set", "verify.memory=false")
"""What is quickest to export and to judge."""
RTX = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")


def report_of(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "report" / "report.json").read_text()))


def record_of(root: Path, stage: str, kind: Any) -> Any:
    return kind.model_validate_json((root / "records" / f"{stage}.json").read_text())


def times(root: Path) -> dict[str, str]:
    """When each stage's record was written."""
    return {stage.name: str((root / "records" / f"{stage.name}.json").stat().st_mtime_ns) for stage in STAGES}


def test_every_stage_ran_and_nothing_alarming_was_printed(finished: Finished) -> None:
    state = json.loads((finished.root / "state.json").read_text())
    assert [state["stages"][stage.name]["status"] for stage in STAGES] == ["done"] * len(STAGES)
    assert not re.search(r"warning|traceback|error", finished.result.err, re.IGNORECASE), finished.result.err
    assert finished.result.err.count("reduced geometry") == 1
    assert "reduced geometry" not in finished.result.out  # said once, before the work
    assert (finished.root / "report" / "report.md").read_text().count("reduced geometry") == 1
    assert "auto" not in (finished.root / "config.yaml").read_text().replace("auto_augment", "")


def test_report_has_accuracy_latency_and_both_lift_graphs(finished: Finished) -> None:
    report = report_of(finished.root)
    assert report["verdict"]["passed"] is True
    assert report["training"]["control"] is None
    assert "control" not in finished.result.err
    rows = {(row["model"], row["runtime"]): row for row in report["models"] if row["precision"] == "fp32"}
    for key in (("teacher", "torch"), ("teacher", "onnx"), ("lift-kept", "onnx"), ("lift-folded", "onnx")):
        assert 0 < rows[key]["top1"]["value"] <= 100
    kept, folded = rows["lift-kept", "onnx"], rows["lift-folded", "onnx"]
    assert folded["parameters"] < kept["parameters"]
    assert folded["latency"]
    assert kept["latency"]
    assert folded["top1"]["value"] == pytest.approx(kept["top1"]["value"], abs=0.6)
    assert "reduced geometry" in " ".join(report["notes"])
    assert (finished.root / "report" / "report.md").read_text().startswith("#")
    page = (finished.root / "report" / "report.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert page.count("data:image/webp;base64,") >= 5  # figures of the analysis
    assert len(page.encode()) < 1_500_000
    assert f"report   {finished.root / 'report' / 'report.html'}\n" in finished.result.out


def test_a_report_of_an_earlier_version_gets_its_page(finished: Finished, run_copy: Path) -> None:
    page = run_copy / "report" / "report.html"
    written = page.read_text()
    page.unlink()
    state = json.loads((run_copy / "state.json").read_text())
    state["report"] = [ref for ref in state["report"] if not ref["path"].endswith(".html")]
    (run_copy / "state.json").write_text(json.dumps(state))
    before = times(run_copy)
    again = in_process(*finished.arguments, "--output", run_copy)
    assert again.code == 0, again.err
    assert times(run_copy) == before
    assert page.read_text().count("<section") == written.count("<section")


def test_report_is_read_back_as_it_was_written_and_its_gates_are_tests(finished: Finished) -> None:
    assert load_report(finished.root) == report_of(finished.root)
    cases = list(ElementTree.parse(finished.root / "report" / "junit.xml").iter("testcase"))  # noqa: S314 - our own
    assert [case[0].attrib["message"] for case in cases] == ["no gate was set, so nothing was judged"]


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


@pytest.mark.usefixtures("exported_before")
def test_changed_export_setting_reuses_the_trained_student_even_in_a_moved_run(
    finished: Finished, run_copy: Path
) -> None:
    before = times(run_copy)
    changed = in_process(*finished.arguments, "--output", run_copy, "--set", "export.max_batch=16", *FP32)
    assert changed.code == 0, changed.err
    after = times(run_copy)
    assert {name for name in before if before[name] != after[name]} == {"export", "verify", "bundle", "gates"}
    assert "distill  reused" in changed.err
    assert record_of(run_copy, "export", ExportRecord).engines == ()


def test_deleted_report_is_written_again_and_nothing_else(finished: Finished, run_copy: Path) -> None:
    before, report = times(run_copy), report_of(run_copy)
    (run_copy / "report" / "report.json").unlink()
    assert in_process(*finished.arguments, "--output", run_copy).code == 0
    assert times(run_copy) == before
    assert report_of(run_copy)["models"] == report["models"]


def test_bundle_edited_by_hand_is_made_again_and_the_student_is_not_trained_again(
    finished: Finished, run_copy: Path
) -> None:
    before = times(run_copy)
    with (run_copy / "bundle" / "labels.txt").open("a") as file:
        file.write("eleven\n")
    damaged = in_process("predict", run_copy / "bundle", run_copy)
    assert damaged.code == 2
    assert "damaged" in damaged.err
    assert in_process(*finished.arguments, "--output", run_copy).code == 0
    open_bundle(run_copy / "bundle")
    after = times(run_copy)
    assert {name for name in before if before[name] != after[name]} <= {"bundle", "gates"}


@pytest.mark.usefixtures("exported_before")
def test_export_keep_then_verify(finished: Finished, run_copy: Path) -> None:
    exported = in_process("export", run_copy, "--projector", "keep", "--target", "onnx", "--precision", "fp16")
    assert exported.code == 0, exported.err
    bundle = open_bundle(run_copy / "bundle")
    assert {(model.runtime, model.precision) for model in bundle.models} == {("onnx", "fp32"), ("onnx", "fp16")}
    assert "student lift-kept" in exported.out
    assert open_bundle(run_copy / "bundle").manifest["facts"]["graph"] == "lift-kept"
    verified = in_process("verify", run_copy, "--set", "gates.min_accuracy=100")
    assert verified.code == 1, verified.err
    report = report_of(run_copy)
    assert report["verdict"]["passed"] is False
    assert report["verdict"]["exit_code"] == 1
    assert "lift-kept" in (run_copy / "report" / "report.md").read_text()


def test_single_steps_refuse_what_is_not_theirs(finished: Finished) -> None:
    state = (finished.root / "state.json").read_bytes()
    for words in (("export", "--set", "distill.epochs=3"), ("verify", "--set", "export.max_batch=8")):
        refused = in_process(words[0], finished.root, *words[1:])
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


def test_predict_needs_no_torch_and_agrees_with_the_report(finished: Finished, tmp_path: Path) -> None:
    data = record_of(finished.root, "data", DataRecord)
    held_out = recorded_images(data)[1].val
    labels = {}
    for index in range(len(held_out)):
        image, label = held_out[index]
        image.save(tmp_path / f"digit {index}.png")
        labels[f"digit {index}.png"] = str(label)
    done = as_process("predict", finished.root / "bundle", tmp_path, "--json", python=("-X", "importtime"))
    assert done.code == 0
    modules = {line.rpartition("|")[2].strip() for line in done.err.splitlines() if line.startswith("import time:")}
    assert "onnxruntime" in modules
    assert not modules & {"torch", "timm", "sklearn", "accelerate"}
    answers = [json.loads(line) for line in done.out.splitlines()]
    right = sum(labels[Path(answer["path"]).name] == answer["labels"][0]["label"] for answer in answers)
    reported = next(row["top1"]["value"] for row in report_of(finished.root)["models"] if row["deployed"])
    assert len(answers) == len(labels)
    assert 100 * right / len(labels) == pytest.approx(reported, abs=0.3)
    assert right / len(labels) > 0.15  # ten classes: it learned something


def test_predict_prints_the_likeliest_labels(finished: Finished, tmp_path: Path) -> None:
    pixels = (load_digits().images[0] * 15.9).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "zéro 0.png")
    done = in_process("predict", finished.root / "bundle", tmp_path / "zéro 0.png", "--top", "3")
    assert done.code == 0
    assert len(re.findall(r"\d+\.\d%", done.out)) == 3


def test_folded_and_kept_lift_agree_on_the_trained_weights(finished: Finished) -> None:
    fold = record_of(finished.root, "fold", FoldRecord)
    data = record_of(finished.root, "data", DataRecord)
    images = sample(recorded_images(data)[1].val, open_bundle(finished.root / "bundle").preprocess, 32)
    kept, folded = (
        load_own(build_model(fold.models[graph]), fold.graphs[graph], finished.root).eval()(images)
        for graph in ("lift-kept", "lift-folded")
    )
    assert float((kept - folded).abs().max().detach()) <= 1e-4
    assert fold.max_logit_difference is not None
    assert fold.max_logit_difference <= 1e-4


@RTX
def test_engine_of_the_bundle_can_be_rebuilt_from_its_onnx(finished: Finished, tmp_path: Path) -> None:
    bundle = open_bundle(finished.root / "bundle")
    engine = bundle.model("engine")
    assert (engine.runtime, engine.precision) == ("tensorrt-rtx", "fp16")
    facts = engine_from_onnx(
        bundle.model("model.fp16.onnx").path,
        tmp_path / "model.engine",
        flavour="tensorrt-rtx",
        precision="fp16",
        opt_batch=8,
        max_batch=32,
        log_path=tmp_path / "engine.log",
    )
    assert (tmp_path / "model.engine").stat().st_size == facts.bytes > 10_000
    (said,) = (one["facts"] for one in bundle.manifest["models"] if one["file"] == engine.path.name)
    assert (said["max_batch"], said["hardware"]) == (32, list(facts.hardware))
    # The builder does not choose the same kernels every time: 5.3 % between two builds of one graph were seen.
    assert engine.path.stat().st_size == pytest.approx(facts.bytes, rel=0.15)
    assert load_tensorrt("tensorrt-rtx").__version__ == facts.version == said["version"]


@RTX
def test_every_precision_and_engine_is_made_measured_or_has_its_reason(finished: Finished) -> None:
    export = record_of(finished.root, "export", ExportRecord)
    assert set(export.reduced) | set(export.missing) == {"fp16", "int8"}
    assert [(engine.flavour, engine.status) for engine in export.engines] == [("tensorrt-rtx", "built")] * 3
    rows = {
        (row["runtime"], row["precision"]): row
        for row in report_of(finished.root)["models"]
        if row["model"] != "teacher"
    }
    for precision in ("fp32", "fp16", "int8"):
        assert rows["onnx", precision]["top1"]["value"] is not None
        assert "needs an NVIDIA GPU" in rows["tensorrt-rtx", precision]["top1"]["reason"]
    rejected = report_of(finished.root)["artifacts"]["bundle"]["rejected"]
    files = {path.name for path in (finished.root / "bundle").iterdir()}
    for one in rejected:
        assert one["why"]
        assert (f"model.{one['precision']}.onnx" not in files) or one["runtime"] != "onnx"


def test_the_bundles_weights_load_in_timm(finished: Finished) -> None:
    import timm

    import vitcompress.stages.models.timm_entry  # noqa: F401 - registers the student's architecture

    folder = finished.root / "bundle" / "timm"
    data = record_of(finished.root, "data", DataRecord)
    fold = record_of(finished.root, "fold", FoldRecord)
    images = sample(recorded_images(data)[1].val, open_bundle(finished.root / "bundle").preprocess, 8)
    wanted = load_own(build_model(fold.models["lift-kept"]), fold.graphs["lift-kept"], finished.root).eval()(images)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert float((network(images) - wanted).abs().max().detach()) < 1e-5


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


def test_another_seed_does_not_get_into_this_folder(finished: Finished) -> None:
    state = (finished.root / "state.json").read_bytes()
    refused = in_process(*finished.arguments, "--output", finished.root, "--seed", "1")
    assert refused.code == 2
    assert "holds another run (seed was 0, now 1)" in refused.err
    assert (finished.root / "state.json").read_bytes() == state
