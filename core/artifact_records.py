"""The hand-offs about what is deployed: artifacts and the bundle.

What was measured of them is in ``core.measured_records``; everything before (data, networks, training) in
``core.records``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from pydantic import Field

from vitcompress.core.preprocess import Input as Input
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import Cost, Graph

Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-qat", "fp8", "int4"]
"""Number format of the matrix products, int4 that of weights alone; LayerNorm and Softmax stay in fp32 in all. int8-qat
is int8 of weights that were trained for it (``stages.distill.qat``)."""
Runtime = str
"""What runs an artifact: ``torch``, or the name of the target that built it (``exporters.targets``)."""

OperatorDtypes = dict[str, dict[str, int]]
"""Operators of a graph, or layers of an engine, counted by type and by the dtype they really compute in."""


def arithmetic_of(precision: Precision) -> Precision:
    """Return what a graph of this precision computes in: of int8-qat, int8."""
    return "int8" if precision == "int8-qat" else precision


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
    """Matrix products that are in fp32 for other reasons, in int8, fp8 and int4 those of attention."""
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


class EngineTrace(Record):
    """The layers of a built engine, traced back to the nodes of its ONNX graph by what TensorRT tells of them."""

    layers: int
    """Layers, those that compute shapes alone left out."""
    untraced: int
    """Layers that name no node of the graph."""
    products: dict[str, int]
    """The graph's matrix products by the precision they compute in as built; ``unknown`` where that is not told."""
    otherwise: dict[str, str]
    """Products that compute in another precision than the graph's, by node, with both in words."""
    lost: tuple[str, ...]
    """Nodes that compute and are in no layer."""


class EngineArtifact(Artifact):
    """What a target other than ONNX Runtime built of a graph (TensorRT: an engine), or why there is nothing."""

    status: Literal["built", "unavailable"]
    flavour: Runtime
    """Name of the target."""
    version: str | None = None
    """Of the library that built it."""
    more: tuple[FileRef, ...] = ()
    """Files without which ``file`` does not load, of its stem: the weights of OpenVINO's IR, of ncnn's."""
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
    max_logit_difference: dict[str, float] = Field(default_factory=dict)
    """Against torch on real images, by batch size; empty where it cannot be run where it is built."""
    reason: str = ""
    """Why there is no engine."""
    trace: EngineTrace | None = None
    """What each product of the graph became; None where the library does not tell."""
    trace_file: FileRef | None = None
    """Every layer with its nodes, and every product with its layers, as JSON."""

    @property
    def target(self) -> Runtime:
        """The flavour of TensorRT, or the name of another target."""
        return self.flavour

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The file to open, and those it needs beside it."""
        return (*super().files, *self.more)


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
    """In fp32."""
    teacher_reduced: dict[Precision, OnnxArtifact] = Field(default_factory=dict)
    """In the precisions of the student's engines; and, where ONNX Runtime runs on a GPU, of the student's graphs."""
    teacher_engines: tuple[EngineArtifact, ...] = ()
    """The teacher's engines of the flavours and precisions of the student's, to compare those with; built or not."""
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

    @property
    def teacher_artifacts(self) -> tuple[Artifact, ...]:
        """Every artifact of the teacher: ONNX from fp32 on, then engines, built or not."""
        return (self.teacher, *self.teacher_reduced.values(), *self.teacher_engines)

    def onnx(self, precision: Precision) -> OnnxArtifact | None:
        """Return the deployed graph in a precision."""
        return self.student[self.deployed] if precision == "fp32" else self.reduced.get(precision)

    def engine(self, flavour: str, precision: Precision) -> EngineArtifact | None:
        """Return the engine of a flavour and precision, built or not."""
        found = [one for one in self.engines if (one.flavour, one.precision) == (flavour, precision)]
        return found[0] if found else None


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
