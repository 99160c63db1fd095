"""Reports of imagined runs: a lift with both graphs, a plain student, a lift without an engine, all fully measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sample_measurements import on_gpu, verify

from vitcompress.core.analysis_records import Advice, Recommendation
from vitcompress.core.artifact_records import (
    BundleRecord,
    EngineArtifact,
    EngineTrace,
    ExportRecord,
    OnnxArtifact,
    Reduction,
    Rejected,
)
from vitcompress.core.measured_records import GateRow, GatesRecord, LatencyRow
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.record import FileRef
from vitcompress.core.records import (
    Cost,
    DataRecord,
    DistillRecord,
    FoldRecord,
    Graph,
    ModelSpec,
    StudentRecord,
    TeacherRecord,
)
from vitcompress.pipeline.report.document import Records, build

NO_ENGINE = "TensorRT is not installed here; pip install tensorrt-rtx"
NO_GPU = "built, but this machine has no GPU to run it on"
COSTS: dict[str, Cost] = {
    "teacher": Cost(parameters=46_916_000, macs=9_350_000_000),
    "plain": Cost(parameters=5_717_416, macs=1_258_000_000),
    "lift-kept": Cost(parameters=5_983_912, macs=1_270_000_000),
    "lift-folded": Cost(parameters=5_754_280, macs=1_262_000_000),
}
SPEC = PreprocessSpec(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def file(name: str, size: int) -> FileRef:
    return FileRef(path=name, sha256="0" * 64, bytes=size)


def model(name: str, graph: Graph = "plain") -> ModelSpec:
    return ModelSpec(arch=name, args={}, num_classes=10, graph=graph)


def onnx(name: str) -> OnnxArtifact:
    return OnnxArtifact(
        name=name,
        file=file(f"export/{name}.onnx", 4 * COSTS[name].parameters + 100_000),
        cost=COSTS[name],
        nodes=299,
        opset=20,
        max_logit_difference={"1": 2.1e-6, "8": 2.4e-6},
        tolerance=1e-3,
        seconds=11.5,
        rewrites=("the last block for the class token alone",),
        operators={"MatMul": {"fp32": 48}, "Gemm": {"fp32": 1}},
    )


def reduced(name: str) -> OnnxArtifact:
    how = Reduction(
        method="half precision but LayerNormalization and Softmax",
        kept_fp32=("blocks.3.mlp.fc2",),
        difference=0.0012,
        agreement=1.0,
        images=64,
        measured="ONNX Runtime on the CPU",
        as_run=0.0012,
        calibration="",
        unreduced=0,
        conversions=3,
    )
    changes = {
        "name": f"{name}.fp16",
        "file": file(f"export/{name}.fp16.onnx", 2 * COSTS[name].parameters),
        "precision": "fp16",
        "operators": {"MatMul": {"fp16": 47, "fp32": 1}, "Gemm": {"fp16": 1}},
        "reduced": how,
    }
    return onnx(name).model_copy(update=changes)


def engine_measured(given: Records, **of_gpu: Any) -> Records:
    """The same run on a machine with a GPU."""

    def measured(row: LatencyRow) -> LatencyRow:
        if row.runtime != "tensorrt-rtx":
            return row
        gpu = on_gpu(row.batch, **of_gpu)
        return row.model_copy(update={"p50_ms": 0.6 * row.batch, "reason": "", "gpu": gpu, "card": gpu.card})

    latency = tuple(map(measured, given.verify.latency))
    return replace(given, verify=given.verify.model_copy(update={"latency": latency}))


def advice(strategy: Any, reason: str = "a reason", pairs: Any = ((11, 23),)) -> Advice:
    """What an analysis of 1000 images advises."""
    entry = Recommendation(
        what="strategy",
        value=strategy,
        rule="a rule",
        reason=reason,
        numbers={"d95": 302.0},
        confidence=0.93,
        source="[EM] a table",
    )
    return Advice(strategy=strategy, kind="spectral", pairs=pairs, wide_heads=None, images=1000,
                  recommendations=(entry,), summary="a summary")  # fmt: skip


def gate(
    name: str, artifact: str, limit: float, verdict: Any, value: float | None, required: bool, why: str
) -> GateRow:
    low, high = (None, None) if value is None else (value - 0.9, value + 0.9)
    return GateRow(
        gate=name,
        artifact=artifact,
        limit=limit,
        value=value,
        low=low,
        high=high,
        verdict=verdict,
        required=required,
        why=why,
    )


def engine(built: bool) -> EngineArtifact:
    if not built:
        return EngineArtifact(status="unavailable", flavour="tensorrt-rtx", precision="fp16", reason=NO_ENGINE)
    return EngineArtifact(
        status="built",
        flavour="tensorrt-rtx",
        precision="fp16",
        version="1.2.0",
        file=file("export/student.fp16.tensorrt-rtx.engine", 23_456_789),
        layers={"MatMul": {"float16": 49}, "Normalization": {"float32": 25}},
        built_layers={"gemm": {"float16": 40}, "correlation": {"float32": 1}},
        tf32=True,
        hardware=("8.9", "12.0"),
        hardware_source="documented default",
        max_batch=8,
        seconds=33.0,
        trace=EngineTrace(
            layers=70,
            untraced=2,
            products={"fp16": 48, "unknown": 1},
            otherwise={},
            lost=(),
        ),
        trace_file=file("export/student.fp16.tensorrt-rtx.layers.json", 34_567),
    )


def records(graphs: tuple[Graph, ...], deployed: Graph, built: bool) -> Records:
    """A run whose student exports ``graphs``."""
    trained = graphs[0]
    compared = len(graphs) > 1
    why = NO_GPU if built else NO_ENGINE
    return Records(
        data=DataRecord(
            config={},
            source="folder /data/pets",
            classes=tuple("abcdefghij"),
            train_images=4000,
            val_images=1000,
            split="the folder's own val",
            digest="1" * 64,
            checked="the first of each class",
        ),
        teacher=TeacherRecord(
            model=model("cait_s24_224"),
            weights=file("teacher/model.safetensors", 187_700_000),
            preprocess=SPEC,
            source="timm pretrained",
            epochs=3,
            cost=COSTS["teacher"],
            width=384,
            depth=24,
            val_top1=92.3,
        ),
        student=StudentRecord(
            model=model("deit_tiny_patch16_224", trained),
            strategy="lift" if compared else "plain",
            weights=file("student/model.safetensors", 23_900_000),
            preprocess=SPEC,
            cost=COSTS[trained],
            width=192,
            depth=12,
            explanation="as built",
        ),
        distill=DistillRecord(
            model=model("deit_tiny_patch16_224", trained),
            weights=file("checkpoints/best.safetensors", 23_900_000),
            chosen="ema",
            val_top1_raw=90.9,
            val_top1_ema=91.1,
            epochs=30,
            steps=1860,
            images=7936,
            left_over=64,
            seconds=1234.0,
            losses={"ce": 0.31, "kd": 0.22, "feature": 0.05},
            shares={"ce": 0.534, "kd": 0.379, "feature": 0.087},
        ),
        fold=FoldRecord(
            graphs={graph: file(f"export/{graph}.safetensors", 23_000_000) for graph in graphs},
            models={graph: model("deit_tiny_patch16_224", graph) for graph in graphs},
            costs={graph: COSTS[graph] for graph in graphs},
            max_logit_difference=1.8e-7 if compared else None,
            tolerance=1e-4,
            images=64,
            rank=192 if compared else None,
        ),
        export=ExportRecord(
            deployed=deployed,
            deployed_why="it measured faster at batch 1",
            student={graph: onnx(graph) for graph in graphs},
            preprocess=SPEC,
            teacher_preprocess=SPEC,
            reduced={"fp16": reduced(deployed)},
            missing={"int8": "top-1 agrees on 12 % of the images"},
            teacher=onnx("teacher"),
            teacher_reduced={"fp16": reduced("teacher")},
            teacher_engines=(engine(True),) if built else (),
            engines=(engine(built),),
            engines_why="tensorrt-rtx 1.2.0 is installed",
        ),
        bundle=BundleRecord(
            files=(file("bundle/model.onnx", 23_000_000),),
            onnx="fp32",
            onnx_why="no other is faster",
            engine=("tensorrt-rtx", "fp16") if built else None,
            engine_why="no engine was measured here" if built else NO_ENGINE,
            rejected=(Rejected(runtime="onnx", precision="int8", why="not faster than fp16"),),
        ),
        verify=verify(graphs, deployed, why),
        gates=GatesRecord(
            rows=(
                gate("max_accuracy_drop", "onnx", 2.5, "pass", 1.23, True, "the whole interval is within the limit"),
                gate("max_accuracy_drop", "engine", 2.5, "unmeasured", None, False, why),
            ),
            passed=True,
        ),
    )


def report_of(given: Records, **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "config": {"student": "deit_tiny", "data": {"path": "/data/pets"}},
        "environment": {"cpu": "2 cores", "torch": "2.9.0"},
        "timings": {"distill": 1234.0},
        "command": "compress run --teacher cait_s24 --student deit_tiny --strategy lift --data /data/pets",
        "notes": ["Images are 64 px instead of 224 px."],
    }
    return build(given, **(arguments | changed))


CASES: dict[str, Records] = {
    "lift": records(("lift-kept", "lift-folded"), "lift-folded", built=True),
    "plain": records(("plain",), "plain", built=True),
    "no-engine": records(("lift-kept", "lift-folded"), "lift-folded", built=False),
}
