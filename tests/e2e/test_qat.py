"""`--precision int8-qat` on a finished run: trained, exported, judged by a gate that passes and one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import in_process
from running import sets

from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.bundle import choose

QUICK = ("verify.latency_seconds=0.2", "verify.memory=false", "verify.throughput_batches=[]")
JUDGED = ("gates.artifacts=[onnx-int8-qat]", "gates.require=[onnx-int8-qat]", "gates.min_speedup=null")


def test_a_finished_run_gets_it_and_is_judged_by_it(
    run_copy: Path, exported_before: None, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "_faster", lambda one, other: one.precision.startswith("int8"))  # no test of a speed
    monkeypatch.chdir(tmp_path)  # where the bundle's own result goes
    words = ("--precision", "fp32,int8,int8-qat", "--target", "onnx")
    done = in_process("export", run_copy, *words, *sets("qat.epochs=1", "export.max_int8_drop=100"))
    assert done.code == 0, done.err
    assert "qat      done" in done.err
    made = load_report(run_copy)["artifacts"]["reduced"]["int8-qat"]
    assert made["operators"]["MatMul"]["int8"] > 0
    assert "weights trained with this rounding for 1 epoch more" in made["reduced"]["method"]
    assert set(made["max_logit_difference"]) == {"1", "2", "7"}
    bundle = run_copy / "bundle"
    assert "`model.int8-qat.onnx`" in (bundle / "README.md").read_text()
    image = next(digits_folder.rglob("*.png"))
    assert in_process("predict", bundle, image, "--model", "onnx int8-qat").code == 0
    assert "int8-qat" in in_process("verify", bundle, *sets(*QUICK)).out
    for limit, code, verdict in ((100, 0, "pass"), (-100, 1, "fail")):
        judged = in_process("verify", run_copy, *sets(*QUICK, *JUDGED, f"gates.max_accuracy_drop={limit}"))
        assert judged.code == code, judged.err
        assert "qat      reused" in judged.err
        (gate,) = (one for one in load_report(run_copy)["gates"] if one["artifact"] == "onnx-int8-qat")
        assert (gate["gate"], gate["verdict"]) == ("max_accuracy_drop", verdict)
