"""What was measured of imagined models: rows of accuracy, latency and memory, and what a GPU did meanwhile."""

from __future__ import annotations

from typing import Any

from vitcompress.core.measured_records import (
    AccuracyRow,
    CardState,
    ColdStart,
    Flip,
    FlipTable,
    FootprintRow,
    GpuParts,
    GpuTimes,
    Hardware,
    LatencyRow,
    Spread,
    TeacherReference,
    TeacherTime,
    ThroughputRow,
    VerifyRecord,
)
from vitcompress.core.records import Graph

P50 = {"teacher": 412.5, "plain": 48.25, "lift-kept": 49.75, "lift-folded": 48.5}
RIGHT = {True: [92] * 9 + [95], False: [91, 88, 92, 92, 82, 92, 92, 92, 95, 95]}
"""Right answers by class, of the teacher and of others: these lose ``e`` most, then ``b``, then ``a``."""


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


def reference(batch: int) -> TeacherReference:
    """The teacher in torch, a tenth faster than in ONNX Runtime."""
    p50 = P50["teacher"] * batch * 0.9 ** (batch - 1)
    times = [("torch", "fp32", 0.9), ("onnx", "fp32", 1.0), ("onnx", "fp16", 1.0)]
    among = tuple(TeacherTime(runtime=name, precision=kind, p50_ms=part * p50) for name, kind, part in times)  # type: ignore[arg-type]
    return TeacherReference(batch=batch, teacher=among[0], among=among)


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
            FootprintRow(
                **place,
                peak_rss_bytes=151_000_000,
                empty_rss_bytes=60_000_000,
                starts=tuple(ColdStart(import_ms=120.0, load_ms=45.5, first_ms=50.0 + extra) for extra in (0, 60, 5)),
                joules_reason="only root may read the processor's energy counter",
                runtime_bytes=58_000_000,
            )
            for place, row in places
            if row.batch == 1
        ),
        flips=(FlipTable(**shown, lost=31, shown=(flip(),)), FlipTable(**shown, precision="fp16", lost=32)),
        hardware=Hardware(processor="A CPU", architecture="x86_64", cores=2, threads=2),
        images_digest="2" * 64,
        class_images=(100,) * 10,
    )
