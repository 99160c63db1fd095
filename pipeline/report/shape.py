"""The report as types: what every reader of ``report.json`` may rely on, and what its published schema is made of.

Records stand in it as they are, those of ``verify`` at its top; what ``document.build`` adds is written down here.
Keys are never renamed or dropped, nor their meaning changed, without a new ``SCHEMA_VERSION``. A number that is NaN or
infinite is written as null, so what may become one is optional here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from vitcompress.core.analysis_records import Advice
from vitcompress.core.artifact_records import BundleRecord, EngineArtifact, OnnxArtifact
from vitcompress.core.measured_records import Flip, FlipTable, GateRow, VerifyRecord
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.record import Record
from vitcompress.core.records import CacheSummary, Snapshot, Strategy, Task

SCHEMA_VERSION = 4


class Quantity(Record):
    """A number with its 95 % interval, or null with the reason."""

    value: float | None
    low: float | None
    high: float | None
    reason: str
    """Why there is no value; empty where there is one."""


_NEVER = Quantity(value=None, low=None, high=None, reason="an earlier version did not measure it")


class Verdict(Record):
    """The word on the whole run and what it follows from."""

    passed: bool
    word: Literal["PASS", "FAIL", "UNDECIDED", "DONE"]
    """UNDECIDED: nothing failed, but not every gate could be decided. DONE: no gate was set."""
    exit_code: Literal[0, 1]
    why: str
    blocking: list[str]
    """What fails the run."""
    open: list[str]
    """Gates that did not pass and do not fail it."""


class Compared(Record):
    """One cost of the teacher and the deployed student."""

    teacher: int
    student: int
    ratio: float
    """Teacher's over student's."""


class Score(Record):
    """What the run is judged by: the number that stands in ``top1`` of models, and of which ``drop`` is points."""

    label: str = "top-1"
    """What a reader calls it (``stages.judging.tasks.score_of``)."""
    unit: str = "%"
    labelled: bool = True
    """Whether it is by labels; else by the teacher's answers, and the teacher in torch has none."""


class Headline(Record):
    """The deployed student against the teacher."""

    student: str
    teacher_top1: Quantity
    """Percent."""
    student_top1: Quantity
    drop: Quantity
    """Points."""
    speedup: Quantity
    """Teacher's median latency over the student's, ONNX Runtime, the same precision, batch 1."""
    speedup_against: str = ""
    """Which teacher that is."""
    speedup_deployed: Quantity = _NEVER
    """Median latency of the teacher as it is deployed today over the student's, batch 1."""
    deployed_teacher: str = ""
    """Which teacher that is; empty where none was measured."""
    teacher_p50_ms: Quantity
    """Of the teacher that ``speedup`` is against."""
    student_p50_ms: Quantity
    parameters: Compared
    macs: Compared
    bytes: Compared


class LatencyCell(Record):
    """One model at one batch size, milliseconds."""

    p50_ms: Quantity
    p90_ms: Quantity
    p99_ms: Quantity
    speedup: Quantity
    """Teacher's median over this one's, same runtime, precision and batch size."""
    speedup_against: str | None = None
    """Precision of the teacher that it is against; null without a speed-up, and in reports of earlier versions."""
    speedup_deployed: Quantity = _NEVER
    """Median of the teacher as it is deployed today (``teacher_references``) over this one's."""
    samples: int


class ModelRow(Record):
    """One model in one runtime and precision: everything that was measured of it."""

    label: str
    model: str
    """``teacher``, or the student's graph."""
    runtime: str
    precision: str
    provider: str
    deployed: bool
    top1: Quantity
    """Percent."""
    top5: Quantity
    drop: Quantity
    """Points, teacher's top-1 minus this one's, the same images."""
    agreement: Quantity
    """Percent of images with the same top-1 as the same graph in torch."""
    ece: Quantity
    """Expected calibration error, points."""
    images: int | None
    latency: dict[str, LatencyCell]
    """By batch size."""
    throughput: dict[str, Quantity]
    """Images a second, by batch size."""
    memory: Quantity
    """Most resident memory of a process that runs it alone (an ONNX file: on the CPU), bytes."""
    cold_start: Quantity = _NEVER
    """Milliseconds from a fresh process to the first image: median; ``low`` and ``high``: fastest and slowest."""
    cold_start_parts: dict[str, float] = Field(default_factory=dict)
    """Its median parts: import of the runtime, load of the file, first image."""
    package: Quantity = _NEVER
    """Bytes of the runtime as it is installed, with what it requires, and of the model's files; without Python."""
    energy: Quantity = _NEVER
    """Joules an image at batch 1, of the whole processor or GPU."""
    parameters: int | None
    macs: int | None
    bytes: int | None
    cost_reason: str
    bytes_reason: str


class Gate(GateRow):
    """A gate's row with the words to speak about it."""

    label: str
    relation: str
    unit: str


class ReportedFlip(Flip):
    """A flip whose confidences may be unknown."""

    teacher_confidence: float | None  # type: ignore[assignment]
    student_confidence: float | None  # type: ignore[assignment]


class ReportedFlips(FlipTable):
    """A table of flips as reported."""

    shown: tuple[ReportedFlip, ...] = ()


class ReportedOnnx(OnnxArtifact):
    """An exported graph with its size in the report's unit."""

    megabytes: float
    """10^6 bytes, its weights file included."""
    max_logit_difference: dict[str, float | None]  # type: ignore[assignment]


class Artifacts(Record):
    """Every exported file, and which of them are deployed."""

    deployed: str
    deployed_why: str
    preprocess: PreprocessSpec
    teacher: ReportedOnnx
    teacher_reduced: dict[str, ReportedOnnx] = Field(default_factory=dict)
    """What reduced precisions and engines of the student are compared with, by precision."""
    teacher_engines: list[EngineArtifact] = Field(default_factory=list)
    student: dict[str, ReportedOnnx]
    """By graph."""
    reduced: dict[str, ReportedOnnx]
    """By precision."""
    missing: dict[str, str]
    """Precisions that were asked for and are not there, with the reason."""
    engines: list[EngineArtifact]
    engines_why: str
    bundle: BundleRecord


class GraphRow(Record):
    """One deployable graph of the student."""

    graph: str
    deployed: bool
    parameters: int
    macs: int
    nodes: int
    bytes: int
    latency: dict[str, LatencyCell]


class Graphs(Record):
    """The deployable graphs side by side."""

    agreement: Quantity
    """Largest difference in logits, folded against kept."""
    tolerance: float | None
    images: int | None
    rank: int | None
    rows: list[GraphRow]


class Data(Record):
    """What the images are."""

    source: str
    train_images: int
    val_images: int
    split: str
    read: str = ""
    """What was read of a manifest or a datasets folder, in words."""
    digest: str
    checked: str
    classes: int
    """How many; their names are in ``class_names``."""
    task: Task = "classification"
    unlabelled: int = 0
    """Training images without a class."""
    labelled: bool = True
    """Whether held-out images have classes; where not, the teacher's answers stand for them."""
    left_out: int = 0
    """Images that cannot be used, in neither split."""
    dropped: int = 0
    """Training images left out because a held-out file has the same bytes."""
    duplicates: int | None = None
    """Held-out files that were found in training too, byte for byte; None where nobody looked."""
    contradictory: int | None = None
    """Training files of which another class has a copy, byte for byte; None where nobody looked."""


class TrainedTeacher(Record):
    """Where the teacher came from."""

    arch: str
    source: str
    epochs: int
    width: int
    depth: int
    val_top1: float | None


class BuiltStudent(Record):
    """How the student was built."""

    arch: str
    strategy: Strategy
    width: int
    depth: int
    explanation: str


class Distilled(Record):
    """How the student was trained (``core.records.DistillRecord`` without its files)."""

    chosen: Literal["raw", "ema"]
    val_top1_raw: float | None
    val_top1_ema: float | None
    epochs: int
    steps: int
    images: int = 0
    left_over: int = 0
    seconds: float
    losses: dict[str, float | None]
    shares: dict[str, float | None] = Field(default_factory=dict)
    first_shares: dict[str, float | None] = Field(default_factory=dict)
    gradient_norms: dict[str, float | None] = Field(default_factory=dict)
    first_gradient_norms: dict[str, float | None] = Field(default_factory=dict)
    scales: dict[str, float | None] = Field(default_factory=dict)
    precision: str = ""
    cache: CacheSummary | None
    snapshots: list[Snapshot]


class Control(Record):
    """The same student trained without the teacher (``core.records.ControlRecord`` without its files)."""

    kind: Literal["labels"]
    start: Literal["", "random", "same"] = ""
    """Its first weights where the student's are the teacher's; empty where they are not."""
    chosen: Literal["raw", "ema"]
    epochs: int
    steps: int
    seconds: float
    images: int
    """Held-out images that both students answered, in torch."""
    val_top1: float | None
    """Its top-1, percent."""
    distilled_top1: float | None
    """The distilled student's, percent."""
    gain: Quantity
    """What the teacher was worth: points of top-1 that the distilled student has more, on the same images."""
    sentence: str
    """The same in words."""


class Training(Record):
    """What was trained, from what, for how long."""

    teacher: TrainedTeacher
    student: BuiltStudent
    distill: Distilled
    control: Control | None = None
    """None where none was asked for."""


class Finding(Record):
    """One thing that a reader should know of a training (``pipeline.report.trained``)."""

    code: str
    """Its name for machines."""
    severity: Literal["note", "warning", "error"]
    """error: the result is wrong, and the run fails."""
    text: str
    """What was found, in numbers, and what to do."""


class Analysis(Record):
    """What the features looked like, in short."""

    images: int
    sample: str
    reason: str
    """Why there is no analysis."""
    advice: Advice | None
    networks: list[str]
    approach: list[dict[str, Any]]
    missing: list[str]
    figures: dict[str, str]
    """By name, as paths relative to the run."""


class MeasuredElsewhere(Record):
    """What another machine measured of the run's bundle. No number of it is compared with one of the run's machine."""

    machine: str
    """Its GPU or processor, and its name in the network."""
    at: str
    """When, UTC."""
    recorded_on: str
    """Where torch's answers come from, against which accuracy was judged there."""
    outdated: str = ""
    """Why the result does not count any more; there are no numbers then."""
    latency_method: str = ""
    models: list[ModelRow] = Field(default_factory=list)
    gates: list[Gate] = Field(default_factory=list)
    """By the limits of the run as they are now."""


class Report(VerifyRecord):
    """The report of a run of `compress`. Units: accuracy percent, drops points, latency milliseconds, sizes bytes."""

    model_config = ConfigDict(title="compress report")

    schema_version: Literal[4]
    verdict: Verdict
    headline: Headline
    score: Score = Score()
    models: list[ModelRow]
    flips: tuple[ReportedFlips, ...] = ()
    class_names: list[str]
    gates: list[Gate]
    machines: list[MeasuredElsewhere] = Field(default_factory=list)
    """Other machines that measured the bundle."""
    artifacts: Artifacts
    graphs: Graphs
    data: Data
    training: Training
    history: list[dict[str, Any]]
    """One line an epoch of each training."""
    findings: list[Finding] = Field(default_factory=list)
    """Whether it trained well: what speaks against it, the worst first."""
    analysis: Analysis
    config: dict[str, Any]
    """The resolved config."""
    environment: dict[str, Any]
    timings: dict[str, float]
    """Seconds of each stage."""
    command: str
    notes: list[str]
