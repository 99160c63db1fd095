"""The hand-offs about what is deployed: artifacts, what was measured of them, the bundle, the verdict.

Everything before (data, networks, training) is in ``core.records``.
"""

from __future__ import annotations

from typing import Literal

from core.record import FileRef, Record
from core.records import Cost, Graph

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""Number format of the matrix products; LayerNorm and Softmax stay in fp32 in all of them."""
Runtime = Literal["torch", "onnx", "tensorrt", "tensorrt-rtx"]
"""What runs an artifact; an engine's is the flavour of TensorRT that built it."""
Input = Literal["float", "uint8"]
"""What an exported model takes: normalised float32 ``[B, 3, S, S]``, or pixels, uint8 ``[B, S, S, 3]``."""
OperatorDtypes = dict[str, dict[str, int]]
"""Operators of a graph, or layers of an engine, counted by type and by the dtype they really compute in."""


class OnnxArtifact(Record):
    """One exported graph and what was checked about it."""

    name: str
    file: FileRef
    data: FileRef | None = None
    """The weights, when they are too large for one file: ``file`` cannot be loaded without it."""
    cost: Cost
    nodes: int
    opset: int
    max_logit_difference: dict[str, float]
    """Against torch on real images, by batch size."""
    tolerance: float
    seconds: float

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return self.file.bytes + (self.data.bytes if self.data else 0)


class EngineArtifact(Record):
    """A TensorRT engine, or why there is none."""

    status: Literal["built", "unavailable", "off"]
    flavour: str
    """``tensorrt``, ``tensorrt-rtx`` or ``none``."""
    version: str | None = None
    file: FileRef | None = None
    hardware: tuple[str, ...] = ()
    """What the engine runs on: compute capabilities for tensorrt-rtx, the GPU's name for tensorrt."""
    hardware_source: str = ""
    """How that is known: read back from the builder, or the documented default of one that cannot be asked."""
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 1
    seconds: float | None = None
    reason: str = ""
    """Why there is no engine, or why it could not be run here."""


class ExportRecord(Record):
    """Every exported artifact, and the bundle made of them."""

    deployed: Graph
    """Which student graph is in the bundle."""
    deployed_why: str
    student: dict[Graph, OnnxArtifact]
    teacher: OnnxArtifact
    engine: EngineArtifact
    bundle: tuple[FileRef, ...]


class AccuracyRow(Record):
    """One model on the whole held-out set."""

    model: str
    runtime: str
    images: int
    top1: float | None
    """Percent; None when it could not be run here (``reason``)."""
    top5: float | None
    """Percent; None when unmeasured or with five or fewer classes."""
    drop: float | None
    """Teacher's top-1 minus this one's, points, the same images."""
    drop_low: float | None
    drop_high: float | None
    """Ends of the paired 95 % interval of ``drop``."""
    top1_low: float | None = None
    top1_high: float | None = None
    """Ends of the 95 % score interval of ``top1``."""
    provider: str = ""
    """ONNX Runtime's execution provider, such as CPUExecutionProvider; empty for other runtimes."""
    reason: str = ""


class LatencyRow(Record):
    """One model at one batch size, measured interleaved with the others of its runtime."""

    model: str
    runtime: str
    batch: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    """None with fewer than 100 samples, where it would be the maximum."""
    samples: int
    speedup: float | None
    """Teacher's median over this model's, same runtime and batch size."""
    speedup_low: float | None
    speedup_high: float | None
    """Ends of the 95 % bootstrap interval of ``speedup`` over interleaved rounds."""
    p50_low: float | None = None
    p50_high: float | None = None
    """Ends of the 95 % bootstrap interval of ``p50_ms``."""
    provider: str = ""
    """ONNX Runtime's execution provider, such as CPUExecutionProvider; empty for other runtimes."""
    reason: str = ""


class GateRow(Record):
    """One named limit on one measured number."""

    gate: str
    artifact: str
    limit: float
    value: float | None
    low: float | None
    high: float | None
    verdict: Literal["pass", "fail", "inconclusive", "unmeasured"]
    required: bool
    """Whether this verdict, if not ``pass``, fails the run; a ``fail`` always does."""
    why: str


class VerifyRecord(Record):
    """What every artifact achieved against the teacher, measured."""

    accuracy: tuple[AccuracyRow, ...]
    latency: tuple[LatencyRow, ...]
    latency_method: str


class GatesRecord(Record):
    """The verdict on those measurements."""

    rows: tuple[GateRow, ...]
    passed: bool
