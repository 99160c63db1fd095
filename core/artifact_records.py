"""The hand-offs about what is deployed: artifacts, what was measured of them, the bundle, the verdict.

Everything before (data, networks, training) is in ``core.records``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from pydantic import Field

from vitcompress.core.preprocess import Input as Input
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import Cost, Graph

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""Number format of the matrix products; LayerNorm and Softmax stay in fp32 in all of them."""
Runtime = str
"""What runs an artifact: ``torch``, or the name of the target that built it (``exporters.targets``)."""
OperatorDtypes = dict[str, dict[str, int]]
"""Operators of a graph, or layers of an engine, counted by type and by the dtype they really compute in."""


class Reduction(Record):
    """How a graph of reduced precision was made of the fp32 one, and how far it is from it on held-out images."""

    method: str
    """Tool and settings, in words."""
    kept_fp32: tuple[str, ...]
    """Nodes left in fp32 because the precision missed its limits otherwise."""
    difference: float | None
    """Largest difference in logits over the spread of the fp32 logits; None where the graph cannot be run here."""
    agreement: float | None
    """Share of images with the same top-1."""
    images: int
    """Held-out images compared."""
    measured: str
    """How, or why not."""
    as_run: float | None
    """``difference`` of the file as ONNX Runtime runs it on this CPU; None where it cannot."""
    calibration: str
    """Which images the value ranges were read from, in words; empty where none are needed."""
    unreduced: int
    """Matrix products that are in fp32 for other reasons, in int8 and fp8 those of attention."""
    conversions: int
    """Graphs that were made and measured until this one."""


class Artifact(Record):
    """One network in one precision as a target runs it, or why there is none.

    ``exporters.targets.get(artifact.target).open(root / artifact.file.path)`` opens it.
    """

    precision: Precision
    file: FileRef | None = None
    """What the target opens; None where nothing could be built."""

    @property
    @abstractmethod
    def target(self) -> Runtime:
        """Name of the target that built it and runs it."""

    @property
    def files(self) -> tuple[FileRef, ...]:
        """All its files with size and SHA-256, the one to open first; empty where nothing could be built."""
        return (self.file,) if self.file else ()

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(one.bytes for one in self.files)


class OnnxArtifact(Artifact):
    """One exported graph and what was checked about it."""

    name: str
    file: FileRef
    data: FileRef | None = None
    """The weights, when they are too large for one file: ``file`` cannot be loaded without it."""
    precision: Precision = "fp32"
    input: Input = "float"
    cost: Cost
    """The trained network's; what rewriting saves is not in it."""
    nodes: int
    opset: int
    max_logit_difference: dict[str, float]
    """Against torch on real images, by batch size."""
    tolerance: float
    """Limit of that in fp32; a reduced precision has limits of its own (``Reduction``)."""
    seconds: float
    rewrites: tuple[str, ...] = ()
    """Exact rewrites of the network before export, in words."""
    not_rewritten: tuple[str, ...] = ()
    """Those asked for that do not apply, with the reason."""
    operators: OperatorDtypes = Field(default_factory=dict)
    """What the graph's operators really compute in."""
    reduced: Reduction | None = None
    """How a reduced precision was reached; None in fp32."""

    @property
    def target(self) -> Runtime:
        """ONNX Runtime's."""
        return "onnx"

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The graph, and its weights where they are in a file of their own."""
        return (self.file, self.data) if self.data else (self.file,)


class EngineArtifact(Artifact):
    """What a target other than ONNX Runtime built of a graph (TensorRT: an engine), or why there is nothing."""

    status: Literal["built", "unavailable"]
    flavour: Runtime
    """Name of the target."""
    version: str | None = None
    """Of the library that built it."""
    log: FileRef | None = None
    layers: OperatorDtypes = Field(default_factory=dict)
    """What the operators of the graph given to the builder compute in, by type."""
    built_layers: OperatorDtypes | None = None
    """What the layers of the engine that came out compute in, by TensorRT's own types, where it tells."""
    tf32: bool = False
    """Whether float32 products may be rounded to TF32 on the way, TensorRT's default."""
    hardware: tuple[str, ...] = ()
    """What the engine runs on: compute capabilities for tensorrt-rtx, the GPU's name for tensorrt."""
    hardware_source: str = ""
    """How that is known: read back from the builder, or the documented default of one that cannot be asked."""
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 1
    seconds: float | None = None
    reason: str = ""
    """Why there is no engine."""

    @property
    def target(self) -> Runtime:
        """The flavour of TensorRT, or the name of another target."""
        return self.flavour


class ExportRecord(Record):
    """Every exported artifact."""

    deployed: Graph
    """Which student graph is deployed; reduced precisions and engines are made of it alone."""
    deployed_why: str
    preprocess: PreprocessSpec
    """What the student's artifacts take."""
    student: dict[Graph, OnnxArtifact]
    """In fp32."""
    reduced: dict[Precision, OnnxArtifact] = Field(default_factory=dict)
    missing: dict[Precision, str] = Field(default_factory=dict)
    """Precisions asked for of which there is no ONNX graph, with the reason."""
    teacher: OnnxArtifact
    teacher_preprocess: PreprocessSpec
    engines: tuple[EngineArtifact, ...] = ()
    engines_why: str = ""
    """Why these flavours, or why none."""
    not_made: tuple[str, ...] = ()
    """What was asked for by name and could not be made, with the reason; it fails the run."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every artifact of the deployed graph: ONNX from fp32 on, then engines, built or not."""
        return (self.student[self.deployed], *self.reduced.values(), *self.engines)

    def onnx(self, precision: Precision) -> OnnxArtifact | None:
        """Return the deployed graph in a precision."""
        return self.student[self.deployed] if precision == "fp32" else self.reduced.get(precision)

    def engine(self, flavour: str, precision: Precision) -> EngineArtifact | None:
        """Return the engine of a flavour and precision, built or not."""
        found = [one for one in self.engines if (one.flavour, one.precision) == (flavour, precision)]
        return found[0] if found else None


class Row(Record):
    """What was measured of one model in one runtime and precision."""

    model: str
    """``teacher``, or the student's graph."""
    runtime: Runtime
    precision: Precision = "fp32"
    reason: str = ""
    """Why it was not measured."""


class AccuracyRow(Row):
    """One model on the whole held-out set."""

    images: int
    top1: float | None
    """Percent; None when unmeasured."""
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
    agreement: float | None = None
    """Percent of images with the same top-1 as the same graph in torch; None for torch itself and when unmeasured."""
    agreement_low: float | None = None
    agreement_high: float | None = None
    """Ends of the 95 % score interval of ``agreement``."""
    ece: float | None = None
    """Expected calibration error, points: 15 bins of equal width (Guo et al. 2017, eq. 3)."""
    class_right: tuple[int, ...] = ()
    """Images classified rightly of each class, in the data's order of classes; empty when unmeasured."""
    right: str = ""
    """Whether each image was classified rightly: bits in the images' order, as ``core.bits`` packs them; empty when
    unmeasured."""
    provider: str = ""
    """ONNX Runtime's execution provider, such as CPUExecutionProvider; empty for other runtimes."""


class LatencyRow(Row):
    """One model at one batch size, measured interleaved with the others of its runtime."""

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
    """Ends of the 95 % bootstrap interval of ``speedup`` over sessions."""
    p50_low: float | None = None
    p50_high: float | None = None
    """Ends of the 95 % bootstrap interval of ``p50_ms`` over sessions."""
    session_p50_ms: tuple[float, ...] = ()
    """Median of each session, milliseconds: a session opens every model but engines anew (memory lies elsewhere) and
    times them in interleaved rounds. Entry s of all rows of a runtime and batch size comes from the same session."""
    quantiles_ms: tuple[float, ...] = ()
    """Minimum, 5th, 10th, ... 95th percentile and maximum of all samples, milliseconds; 21 numbers."""
    warm_up_rounds: int = 0
    """Rounds that were discarded, over all sessions."""
    settled: bool = True
    """Whether the times had stopped falling when warm-up ended, in every session."""
    gpu_p50_ms: float | None = None
    gpu_p90_ms: float | None = None
    gpu_p99_ms: float | None = None
    """An engine's GPU compute alone, by CUDA events, without transfers; ``p50_ms`` is end to end, with them."""
    gpu_method: str = ""
    """How that was measured, and on which GPU."""
    provider: str = ""
    """As in ``AccuracyRow``."""


class ThroughputRow(Row):
    """How many images a second one model takes at one batch size."""

    batch: int
    images_per_second: float | None
    """Batch size over the median time; None when unmeasured."""
    low: float | None = None
    high: float | None = None
    """Ends of its 95 % interval."""
    samples: int = 0


class MemoryRow(Row):
    """What one model needs in a process of its own that does nothing else; an ONNX file runs on the CPU in it."""

    batch: int
    peak_rss_bytes: int | None
    """Most resident memory of the process; None when unmeasured."""
    empty_rss_bytes: int | None = None
    """The same of a process that only loads the runtime's library."""
    gpu_bytes: int | None = None
    """GPU memory in use by it, where it runs on one."""


class Hardware(Record):
    """What absolute times depend on: they are compared only where this is the same."""

    processor: str
    architecture: str
    cores: int
    """Cores that the process may use."""
    threads: int
    """Threads of each session."""
    gpu: str = ""
    """Its name; empty where models run on the CPU."""


class Flip(Record):
    """One image that the teacher and an artifact answer differently."""

    image: str
    """Path inside its split, or ``image N`` where images have no path."""
    label: int
    teacher: int
    student: int
    """Classes, by number."""
    teacher_confidence: float
    student_confidence: float
    """Softmax probability of the answer given, 0 to 1."""
    thumbnail: str = ""
    """Path of a small picture, relative to the run directory; empty when there is none."""


class FlipTable(Record):
    """The images that one artifact answers otherwise than the teacher (in torch)."""

    model: str
    runtime: Runtime
    precision: Precision = "fp32"
    lost: int
    """Right with the teacher, wrong with the artifact."""
    won: int
    """The reverse."""
    other: int
    """Both wrong, differently."""
    shown: tuple[Flip, ...] = ()
    """Some of them: lost ones first, the most confident wrong answers first. All are in ``VerifyRecord.answers``."""
    note: str = ""
    """What is to be known about those shown, such as why some have no thumbnail; empty when nothing is."""


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

    @property
    def blocks(self) -> bool:
        """Whether this row fails the run or the check it belongs to."""
        return self.verdict == "fail" or (self.required and self.verdict != "pass")


class VerifyRecord(Record):
    """What every artifact achieved against the teacher, measured."""

    accuracy: tuple[AccuracyRow, ...]
    latency: tuple[LatencyRow, ...]
    latency_method: str
    throughput: tuple[ThroughputRow, ...] = ()
    memory: tuple[MemoryRow, ...] = ()
    flips: tuple[FlipTable, ...] = ()
    """Of the deployed graph's artifacts that could be run."""
    hardware: Hardware | None = None
    """None in records of earlier versions."""
    pinned: tuple[int, ...] = ()
    """CPUs that the process was bound to while times were taken; empty where the system cannot do that."""
    disturbance: float | None = None
    """Share of the CPUs' time that other processes took while latencies were measured, 0 to 1: of all CPUs, or of those
    in ``pinned``, whichever is more; None when unknown."""
    images_digest: str = ""
    """SHA-256 over the held-out images' names, sizes and classes, in order: the same images elsewhere have the same."""
    class_images: tuple[int, ...] = ()
    """Held-out images of each class, in the data's order of classes."""
    answers: FileRef | None = None
    """CSV, gzipped: every image with its class, and each artifact's answer and confidence."""

    def accuracy_of(self, model: str, runtime: Runtime, precision: Precision) -> AccuracyRow | None:
        """Return the row of one artifact, measured or not."""
        wanted = (model, runtime, precision)
        return next((row for row in self.accuracy if (row.model, row.runtime, row.precision) == wanted), None)

    def latency_of(self, model: str, runtime: Runtime, precision: Precision, batch: int = 1) -> LatencyRow | None:
        """Return the row of one artifact at one batch size, measured or not."""
        wanted = (model, runtime, precision, batch)
        return next((row for row in self.latency if (row.model, row.runtime, row.precision, row.batch) == wanted), None)


class Rejected(Record):
    """An artifact that was made and is not in the bundle."""

    runtime: Runtime
    precision: Precision
    why: str


class BundleRecord(Record):
    """What is deployed: the bundle's files, and which of them is recommended."""

    files: tuple[FileRef, ...]
    onnx: Precision
    """Of the ONNX graph that is recommended, and judged."""
    onnx_why: str
    engine: tuple[Runtime, Precision] | None
    """Of the engine that is recommended, and judged; None when the bundle has none."""
    engine_why: str
    rejected: tuple[Rejected, ...] = ()


class GatesRecord(Record):
    """The verdict on those measurements."""

    rows: tuple[GateRow, ...]
    passed: bool
