"""The hand-offs about what was measured of artifacts, and the verdict on it."""

from __future__ import annotations

from typing import Literal

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.footprint_records import ColdStart as ColdStart
from vitcompress.core.footprint_records import FootprintRow as FootprintRow
from vitcompress.core.footprint_records import Row as Row
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import Task


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


class MetricRow(Row):
    """One metric of one model on the whole held-out set, beside top-1 (``stages.judging.metrics``)."""

    metric: str
    """Its name in the gates: ``min_METRIC``, ``max_METRIC_drop``."""
    label: str
    value: float | None = None
    """Percent; None when unmeasured."""
    value_low: float | None = None
    value_high: float | None = None
    """Ends of its 95 % bootstrap interval over images."""
    drop: float | None = None
    """The teacher's in torch minus this one's, points; None of itself."""
    drop_low: float | None = None
    drop_high: float | None = None
    """Ends of its paired 95 % interval."""


class Spread(Record):
    """Milliseconds of many inferences of a batch."""

    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    """None with fewer than 100 samples, where it would be the maximum."""


class GpuParts(Record):
    """One engine in the terms of trtexec's summary, each field the line of that name (docs/gpu-timing.md)."""

    enqueue: Spread
    """Enqueue Time: how long the host is busy with queueing."""
    h2d: Spread
    """H2D Latency: the images' copy to the GPU, from pinned memory."""
    compute: Spread
    """GPU Compute Time."""
    d2h: Spread
    """D2H Latency: the logits' copy back."""
    latency: Spread
    """Latency: the sum of these three for each inference."""
    samples: int


class CardState(Record):
    """What NVML told of the GPU while something was timed."""

    readings: int
    """Taken five times a second, and once at the end."""
    sm_mhz: tuple[int, int] | None
    memory_mhz: tuple[int, int] | None
    celsius: tuple[int, int] | None
    """Lowest and highest."""
    limited: dict[str, float]
    """Share of the readings in which clocks were held down, by the reason, 0 to 1."""
    processes: int | None
    """Most processes seen with work on the card, this one included; a container may see fewer, or none."""
    busy_before: int | None
    """Percent of the time that others kept the card busy while this process rested."""
    idle_watts: float | None
    """Power while this process rested."""
    disturbed: str
    """That the card was throttled or shared, in words: verdicts on these times are then ``inconclusive``. Empty when it
    was neither."""


class GpuTimes(Record):
    """One engine at one batch size as the GPU's own clock tells; the row's ``p50_ms`` is end to end, by the host's."""

    plain: GpuParts
    """Without CUDA graphs."""
    graph: GpuParts | None
    """With the engine's kernels in one CUDA graph."""
    graph_reason: str = ""
    """Why there is none."""
    joules: float | None
    """An image, of the whole card (idle power included), while inferences with their copies follow each other."""
    joules_low: float | None = None
    joules_high: float | None = None
    """Ends of its 95 % interval by the counter's scatter; the sensor's own error is not in it."""
    joules_reason: str = ""
    """Why energy was not measured."""
    watts: float | None = None
    """Mean power meanwhile."""
    card: CardState | None
    """Of the card while all this was measured; None where NVML is not here."""
    method: str
    """How it was measured, and on what."""

    @property
    def disturbed(self) -> str:
        """Say that the card was throttled or shared meanwhile; empty when it was not, or nobody could look."""
        return self.card.disturbed if self.card else ""


class LatencyRow(Row):
    """One model at one batch size, measured interleaved with the others of its runtime."""

    batch: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    """None with fewer than 100 samples, where it would be the maximum."""
    samples: int
    speedup: float | None
    """Teacher's median over this model's, same runtime, precision and batch size (see ``speedup_against``)."""
    speedup_low: float | None
    speedup_high: float | None
    """Ends of the 95 % bootstrap interval of ``speedup`` over sessions."""
    speedup_against: Precision | None = None
    """Precision of the teacher that ``speedup`` is against: this row's, or fp32 where ONNX Runtime has none in it. None
    without a speed-up, and in records of earlier versions, which compared with fp32."""
    speedup_reason: str = ""
    """Why a student that was measured has no ``speedup``."""
    speedup_deployed: float | None = None
    """Median of the teacher as it is deployed today (``VerifyRecord.teacher_references``) over this model's."""
    speedup_deployed_low: float | None = None
    speedup_deployed_high: float | None = None
    """Ends of its 95 % interval: bootstrap over sessions where both are of the same ones, else Yuen's of two
    independent measurements."""
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
    gpu: GpuTimes | None = None
    """Of an engine, timed apart."""
    card: CardState | None = None
    """Of the GPU during the sessions, where this model runs on one."""
    provider: str = ""
    """As in ``AccuracyRow``."""

    @property
    def disturbed(self) -> str:
        """Say that the card was throttled or shared during the sessions; empty when it was not, or nobody looked."""
        return self.card.disturbed if self.card else ""


class TeacherTime(Record):
    """What one of the teachers took."""

    runtime: Runtime
    precision: Precision
    p50_ms: float


class TeacherReference(Record):
    """Which teacher stands for the one that is deployed today, at one batch size."""

    batch: int
    teacher: TeacherTime | None
    """None where none of those that ``verify.teacher_reference`` allows was measured."""
    among: tuple[TeacherTime, ...]
    """Those it was chosen from, as the fastest, itself included."""
    reason: str = ""
    """Why there is none."""


class ThroughputRow(Row):
    """How many images a second one model takes at one batch size."""

    batch: int
    images_per_second: float | None
    """Batch size over the median time; None when unmeasured."""
    low: float | None = None
    high: float | None = None
    """Ends of its 95 % interval."""
    samples: int = 0


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


class Confusion(Row):
    """Which classes one model takes for which on the held-out images, as a sparse matrix without its diagonal."""

    cells: tuple[tuple[int, int, int], ...] = ()
    """Class, answer, and how many images: the largest first, at most 2,450, which is all of 50 classes."""


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
    machine: str = ""
    """Where it was measured, if that is another machine than the run's."""

    @property
    def blocks(self) -> bool:
        """Whether this row fails the run or the check it belongs to."""
        return self.verdict == "fail" or (self.required and self.verdict != "pass")


class VerifyRecord(Record):
    """What every artifact achieved against the teacher, measured."""

    accuracy: tuple[AccuracyRow, ...]
    task: Task = "classification"
    """What ``AccuracyRow.top1`` is follows from it: ``stages.judging.tasks.SCORES``."""
    metrics: tuple[MetricRow, ...] = ()
    """What is measured besides, of the task."""
    latency: tuple[LatencyRow, ...]
    latency_method: str
    teacher_references: tuple[TeacherReference, ...] = ()
    """The teacher that each ``speedup_deployed`` is against, by batch size; empty in records of earlier versions."""
    throughput: tuple[ThroughputRow, ...] = ()
    memory: tuple[FootprintRow, ...] = ()
    """What each artifact takes to deploy, memory and the rest; empty with ``verify.memory=false``."""
    flips: tuple[FlipTable, ...] = ()
    """Of the deployed graph's artifacts that could be run."""
    confusions: tuple[Confusion, ...] = ()
    """Of the teacher in torch and of the student's ONNX files, where an image has one class and one answer."""
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
    held_out: FileRef | None = None
    """JSON: name, class and SHA-256 of every held-out image, in order (``stages.images.listed``)."""
    thresholds: tuple[float, ...] = ()
    """Of several labels: the probability of each class above which the deployed graph gives it, by the highest F1 on
    all held-out images; empty of other tasks."""
    logits: FileRef | None = None
    """Torch's logits of teacher and deployed graph, in this order: safetensors, ``logits`` float32 ``[N, 2, K]``."""

    def accuracy_of(self, model: str, runtime: Runtime, precision: Precision) -> AccuracyRow | None:
        """Return the row of one artifact, measured or not."""
        wanted = (model, runtime, precision)
        return next((row for row in self.accuracy if (row.model, row.runtime, row.precision) == wanted), None)

    def metric_of(self, metric: str, row: Row) -> MetricRow | None:
        """Return a metric of the model, runtime and precision of ``row``; None where these images have none."""
        wanted = (metric, row.model, row.runtime, row.precision)
        return next(
            (one for one in self.metrics if (one.metric, one.model, one.runtime, one.precision) == wanted), None
        )

    def latency_of(self, model: str, runtime: Runtime, precision: Precision, batch: int = 1) -> LatencyRow | None:
        """Return the row of one artifact at one batch size, measured or not."""
        wanted = (model, runtime, precision, batch)
        return next((row for row in self.latency if (row.model, row.runtime, row.precision, row.batch) == wanted), None)

    def footprint_of(self, row: Row) -> FootprintRow | None:
        """Return what the model, runtime and precision of ``row`` takes to deploy; None where nobody looked."""
        wanted = (row.model, row.runtime, row.precision)
        return next((one for one in self.memory if (one.model, one.runtime, one.precision) == wanted), None)

    def teacher_reference(self, batch: int = 1) -> TeacherReference | None:
        """Return the teacher that stands for the one deployed today; None in records of earlier versions."""
        return next((one for one in self.teacher_references if one.batch == batch), None)


class GatesRecord(Record):
    """The verdict on those measurements."""

    rows: tuple[GateRow, ...]
    passed: bool
