from __future__ import annotations

import pytest

from core.artifact_records import (
    AccuracyRow,
    EngineArtifact,
    ExportRecord,
    GateRow,
    LatencyRow,
    OnnxArtifact,
    VerifyRecord,
)
from core.context import Context
from core.records import Cost, FileRef
from stages.gates import stage
from stages.gates.config import NO_TEACHER_ENGINE, GatesConfig
from stages.gates.stage import Inputs

GRAPH, WEIGHTS, ENGINE = 1_000_000, 3_000_000_000, 2_000_000


def file(name: str, size: int) -> FileRef:
    return FileRef(path=name, sha256="0" * 64, bytes=size)


def onnx(data: FileRef | None) -> OnnxArtifact:
    return OnnxArtifact(
        name="student-plain",
        file=file("export/student-plain.onnx", GRAPH),
        data=data,
        cost=Cost(parameters=1, macs=1),
        nodes=1,
        opset=20,
        max_logit_difference={"1": 0.0},
        tolerance=1e-3,
        seconds=1.0,
    )


def latency(runtime: str, speedup: float | None) -> LatencyRow:
    return LatencyRow(
        model="plain",
        runtime=runtime,
        batch=1,
        p50_ms=2.0,
        p50_low=1.9,
        p50_high=2.1,
        p90_ms=2.5,
        p99_ms=None,
        samples=50,
        speedup=speedup,
        speedup_low=speedup,
        speedup_high=speedup,
    )


def accuracy(runtime: str) -> AccuracyRow:
    return AccuracyRow(
        model="plain",
        runtime=runtime,
        images=100,
        top1=90.0,
        top1_low=88.0,
        top1_high=92.0,
        top5=None,
        drop=1.0,
        drop_low=0.5,
        drop_high=1.5,
    )


def judged(context: Context, data: FileRef | None = None, **limits: float) -> dict[tuple[str, str], GateRow]:
    """Rows by gate and artifact; both the ONNX file and the engine were measured on this machine."""
    engine = EngineArtifact(status="built", flavour="tensorrt-rtx", file=file("export/model.engine", ENGINE))
    export = ExportRecord(
        deployed="plain", deployed_why="", student={"plain": onnx(data)}, teacher=onnx(None), engine=engine, bundle=()
    )
    verify = VerifyRecord(
        accuracy=(accuracy("onnx"), accuracy("engine")),
        latency=(latency("onnx", 3.0), latency("engine", None)),
        latency_method="",
    )
    record = stage.run(GatesConfig(**limits), Inputs(export, verify), context)  # type: ignore[arg-type]
    return {(row.gate, row.artifact): row for row in record.rows}


@pytest.mark.parametrize(
    ("data", "megabytes", "verdict"),
    [(None, 1.0, "pass"), (file("export/student-plain.onnx.data", WEIGHTS), 3001.0, "fail")],
)
def test_the_size_is_that_of_all_files(context: Context, data: FileRef | None, megabytes: float, verdict: str) -> None:
    rows = judged(context, data, max_size_mb=100.0)
    assert (rows["max_size_mb", "onnx"].value, rows["max_size_mb", "onnx"].verdict) == (megabytes, verdict)
    assert rows["max_size_mb", "engine"].value == 2.0


def test_an_engines_speedup_is_unmeasured_because_there_is_no_teacher_engine(context: Context) -> None:
    rows = judged(context, min_speedup=2.0, max_latency_ms=5.0)
    assert rows["min_speedup", "onnx"].verdict == "pass"
    assert rows["max_latency_ms", "engine"].verdict == "pass"
    engine = rows["min_speedup", "engine"]
    assert (engine.verdict, engine.why) == ("unmeasured", NO_TEACHER_ENGINE)
    assert "no engine is built of the teacher" in engine.why
