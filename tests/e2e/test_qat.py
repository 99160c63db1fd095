"""`--precision int8-qat` on a finished run: trained, exported, judged by a gate that passes and one that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import in_process
from running import sets

from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.bundle import choose

QUICK = ("verify.latency_seconds=0.2", "verify.memory=false", "verify.throughput_batches=[]")
JUDGED = ("gates.artifacts=[onnx, onnx-int8-qat]", "gates.require=[onnx-int8-qat]", "gates.min_speedup=null")


def test_a_finished_run_gets_it_and_is_judged_by_it(
    run_copy: Path, exported_before: None, digits_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "_faster", lambda one, other: one.precision.startswith("int8"))  # no test of a speed
    trained = (run_copy / "records" / "distill.json").read_bytes()
    words = ("--precision", "fp32,int8,int8-qat", "--target", "onnx")
    done = in_process("export", run_copy, *words, *sets("qat.epochs=1", "export.max_int8_drop=100"))
    assert done.code == 0, done.err
    assert "qat      done" in done.err
    assert (run_copy / "records" / "distill.json").read_bytes() == trained
    (row,) = (one for one in load_report(run_copy)["models"] if one["precision"] == "int8-qat")
    assert row["top1"]["value"] is not None
    export = json.loads((run_copy / "records" / "export.json").read_text())
    made = export["reduced"]["int8-qat"]
    assert made["operators"]["Gemm"]["int8"] > 0
    assert "weights trained with this rounding for 1 epoch more" in made["reduced"]["method"]
    assert set(made["max_logit_difference"]) == {"1", "2", "7"}
    passed = in_process("verify", run_copy, *sets(*QUICK, *JUDGED, "gates.max_accuracy_drop=100"))
    assert passed.code == 0, passed.err
    assert "qat      reused" in passed.err
    bundle = run_copy / "bundle"
    names = {one["name"]: one["file"] for one in json.loads((bundle / "manifest.json").read_text())["models"]}
    assert names["onnx int8-qat"] == "model.int8-qat.onnx"
    assert "`model.int8-qat.onnx`" in (bundle / "README.md").read_text()
    image = next(digits_folder.rglob("*.png"))
    assert in_process("predict", bundle, image, "--model", "onnx int8-qat").code == 0
    elsewhere = in_process("verify", bundle, *sets(*QUICK))
    assert "int8-qat" in elsewhere.out, elsewhere.err
    failed = in_process("verify", run_copy, *sets(*QUICK, *JUDGED, "gates.max_accuracy_drop=-100"))
    assert failed.code == 1
    (gate,) = (one for one in load_report(run_copy)["gates"] if one["artifact"] == "onnx-int8-qat")
    assert (gate["gate"], gate["verdict"]) == ("max_accuracy_drop", "fail")
