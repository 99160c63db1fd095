"""Reports of imagined runs: a lift with both graphs, a plain student, a lift without an engine, all fully measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
from vitcompress.core.measured_records import (
    AccuracyRow,
    CardState,
    Flip,
    FlipTable,
    GateRow,
    GatesRecord,
    GpuParts,
    GpuTimes,
    Hardware,
    LatencyRow,
    MemoryRow,
    Spread,
    TeacherReference,
    TeacherTime,
    ThroughputRow,
    VerifyRecord,
)
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
P50 = {"teacher": 412.5, "plain": 48.25, "lift-kept": 49.75, "lift-folded": 48.5}
SPEC = PreprocessSpec(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RIGHT = {True: [92] * 9 + [95], False: [91, 88, 92, 92, 82, 92, 92, 92, 95, 95]}
"""Right answers by class, of the teacher and of others: these lose ``e`` most, then ``b``, then ``a``."""


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


def accuracy(name: str, runtime: Any, top1: float | None, drop: float | None, **more: Any) -> AccuracyRow:
    found: dict[str, Any] = {"top1": None, "top5": None, "drop": None, "drop_low": None, "drop_high": None}
    if top1 is not None:
        found |= {"top1": top1, "top1_low": top1 - 1.7, "top1_high": top1 + 1.7, "top5": 99.0, "ece": 3.25}
        found |= {"class_right": tuple(RIGHT[name == "teacher"]), "right": "AAA="}
        if runtime != "torch":
            found |= {"agreement": 99.7, "agreement_low": 99.1, "agreement_high": 99.9}
    if drop is not None:
        found |= {"drop": drop, "drop_low": drop - 0.9, "drop_high": drop + 0.9}
    provider = "CPUExecutionProvider" if runtime == "onnx" else ""
    return AccuracyRow(model=name, runtime=runtime, images=1000, provider=provider, **found, **more)


def latency(name: str, runtime: Any, batch: int, reason: str = "", precision: Any = "fp32") -> LatencyRow:
    place: dict[str, Any] = {"model": name, "runtime": runtime, "precision": precision, "batch": batch}
    place["provider"] = "CPUExecutionProvider" if runtime == "onnx" else ""
    if reason:
        nothing = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"))
        return LatencyRow(**place, **nothing, samples=0, reason=reason)
    p50, speedup = P50[name] * batch * 0.9 ** (batch - 1), P50["teacher"] / P50[name]
    return LatencyRow(
        **place,
        p50_ms=p50,
        p50_low=0.98 * p50,
        p50_high=1.02 * p50,
        p90_ms=1.1 * p50,
        p99_ms=None,
        samples=43,
        speedup=speedup,
        speedup_low=0.97 * speedup,
        speedup_high=1.03 * speedup,
        speedup_against=None if name == "teacher" else precision,
        speedup_deployed=None if name == "teacher" else 0.9 * speedup,
        speedup_deployed_low=None if name == "teacher" else 0.88 * speedup,
        speedup_deployed_high=None if name == "teacher" else 0.92 * speedup,
        session_p50_ms=(0.99 * p50, p50, 1.01 * p50),
    )


def on_gpu(batch: int, disturbed: str = "", graph_reason: str = "") -> GpuTimes:
    """An engine of 0.4 ms an image."""

    def parts(enqueue: float) -> GpuParts:
        def spread(p50: float) -> Spread:
            return Spread(p50_ms=p50, p90_ms=1.05 * p50, p99_ms=1.2 * p50)

        h2d, compute, d2h = 0.05 * batch, 0.4 * batch, 0.004
        return GpuParts(
            enqueue=spread(enqueue),
            h2d=spread(h2d),
            compute=spread(compute),
            d2h=spread(d2h),
            latency=spread(h2d + compute + d2h),
            samples=1200,
        )

    card = CardState(
        readings=31,
        sm_mhz=(1410, 1695),
        memory_mhz=(6251, 6251),
        celsius=(41, 58),
        limited={"software power cap": 0.4},
        processes=1,
        busy_before=0,
        idle_watts=32.1,
        disturbed=disturbed,
    )
    return GpuTimes(
        plain=parts(0.21),
        graph=None if graph_reason else parts(0.012),
        graph_reason=graph_reason,
        joules=0.0312,
        joules_low=0.0309,
        joules_high=0.0316,
        watts=71.5,
        card=card,
        method="NVIDIA A10, driver 580.65.06 (CUDA 13.2), tensorrt-rtx 1.7.1",
    )


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


def reference(batch: int) -> TeacherReference:
    """The teacher in torch, a tenth faster than in ONNX Runtime."""
    p50 = P50["teacher"] * batch * 0.9 ** (batch - 1)
    times = [("torch", "fp32", 0.9), ("onnx", "fp32", 1.0), ("onnx", "fp16", 1.0)]
    among = tuple(TeacherTime(runtime=name, precision=kind, p50_ms=part * p50) for name, kind, part in times)  # type: ignore[arg-type]
    return TeacherReference(batch=batch, teacher=among[0], among=among)


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


def flip(**more: Any) -> Flip:
    answers = {"image": "c/1.png", "label": 2, "teacher": 2, "student": 4}
    return Flip(**{**answers, "teacher_confidence": 0.9, "student_confidence": 0.8, **more})


def verify(graphs: tuple[Graph, ...], deployed: Graph, why: str) -> VerifyRecord:
    """What was measured; ``why`` the engine was not."""
    on_cpu = [("teacher", "fp32"), ("teacher", "fp16"), *((graph, "fp32") for graph in graphs), (deployed, "fp16")]
    timed = [latency(name, "onnx", batch, precision=precision) for name, precision in on_cpu for batch in (1, 8)]
    places: list[tuple[dict[str, Any], LatencyRow]] = [
        ({"model": row.model, "runtime": "onnx", "precision": row.precision, "batch": row.batch}, row) for row in timed
    ]
    shown = {"model": deployed, "runtime": "onnx", "won": 18, "other": 7}
    return VerifyRecord(
        accuracy=(
            accuracy("teacher", "torch", 92.3, None),
            accuracy("teacher", "onnx", 92.3, 0.0),
            accuracy("teacher", "onnx", 92.3, 0.0, precision="fp16"),
            accuracy("teacher", "tensorrt-rtx", None, None, reason=why, precision="fp16"),
            accuracy(graphs[0], "torch", 91.1, 1.2),
            *(accuracy(graph, "onnx", 91.07, 1.23) for graph in graphs),
            accuracy(deployed, "onnx", 91.0, 1.3, precision="fp16"),
            accuracy(deployed, "tensorrt-rtx", None, None, reason=why, precision="fp16"),
        ),
        latency=(
            *timed,
            *(latency(name, "tensorrt-rtx", batch, why, "fp16") for name in ("teacher", deployed) for batch in (1, 8)),
        ),
        teacher_references=(reference(1), reference(8)),
        latency_method="43 interleaved rounds in one process, 2 threads.",
        throughput=tuple(
            ThroughputRow(**place, images_per_second=1000 * row.batch / (row.p50_ms or 0), samples=43)
            for place, row in places
        ),
        memory=tuple(
            MemoryRow(**place, peak_rss_bytes=151_000_000, empty_rss_bytes=60_000_000)
            for place, row in places
            if row.batch == 1
        ),
        flips=(FlipTable(**shown, lost=31, shown=(flip(),)), FlipTable(**shown, precision="fp16", lost=32)),
        hardware=Hardware(processor="A CPU", architecture="x86_64", cores=2, threads=2),
        images_digest="2" * 64,
        class_images=(100,) * 10,
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
