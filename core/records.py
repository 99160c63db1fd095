"""The hand-offs between stages: frozen records of paths, digests and numbers, never live modules.

A record is JSON on disk (``RUN/records/STAGE.json``). Later stages, resuming, single-stage commands and the report
read nothing else about an earlier stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact
from vitcompress.core.images import Channels
from vitcompress.core.network_names import spoken
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.record import FileRef as FileRef
from vitcompress.core.record import Record

Task = Literal["classification", "multilabel", "embedding"]
"""What a network gives of an image: one class of several, any number of classes, or a vector to compare images by."""
Strategy = Literal["plain", "lift", "widelast", "uniform"]
WhichWeights = Literal["chosen", "best", "last", "average"]
"""Of a trained student: those that are deployed unless others are asked for, and those of ``DistillRecord.kept``."""
WideHeads = Literal["size", "count"]
"""What a widened block keeps: the size of a head (more heads) or the number of heads (larger ones)."""
Graph = Literal["plain", "widelast", "lift-kept", "lift-folded"]
"""The shape of a deployable student: a strategy, with a lift's projector kept or folded. A uniformly wider student is
plain: its width is among the arguments."""


class ModelSpec(Record):
    """Everything needed to build a network again, weights aside."""

    later: ClassVar[frozenset[str]] = frozenset({"embedding"})

    arch: str
    """timm architecture name, without a pretrained tag, or ``module:function`` of a user's own."""
    args: dict[str, Any]
    """Arguments for ``timm.create_model`` besides the name and the number of classes."""
    num_classes: int
    graph: Graph = "plain"
    lift_width: int | None = None
    """Teacher's token width that a lift or a widened last block reaches; None for plain."""
    fold_rank: int | None = None
    """Rows of the factor R of a folded lift; None unless ``graph`` is lift-folded."""
    wide_blocks: int = 1
    """Last blocks that a widelast widens, in equal steps."""
    wide_heads: WideHeads = "size"
    """What they keep."""
    embedding: int | None = None
    """Width of the embedding that it gives; None of what gives logits."""

    @property
    def name(self) -> str:
        """The architecture as reports, cards and names of folders have it."""
        return spoken(self.arch)


class Cost(Record):
    """What a network costs, independent of any machine."""

    parameters: int
    macs: int
    """Multiply-accumulates for one image (matrix products, convolutions and attention)."""


class DataRecord(Record):
    """What the images are."""

    volatile: ClassVar[frozenset[str]] = frozenset({"checked", "duplicates", "contradictory", "read"})
    later: ClassVar[frozenset[str]] = frozenset({"task", "unlabelled", "labelled", "mean", "std"})

    config: dict[str, Any]
    """The DataConfig, as JSON values, so that every later stage opens the same images."""
    source: str
    classes: tuple[str, ...]
    train_images: int
    val_images: int
    split: str
    """How held-out images were chosen, in words."""
    read: str = ""
    """What was read of a manifest or a datasets folder, in words: rows, columns, the order of the classes."""
    task: Task = "classification"
    unlabelled: int = 0
    """Training images without a class (``stages.images.splits.UNLABELLED``), which teach the teacher's answer alone."""
    labelled: bool = True
    """Whether held-out images have classes; where not, the teacher's answers stand for them."""
    digest: str
    """SHA-256 over the sorted listing (relative path, bytes, mtime) of both splits, or over the embedded pixels."""
    checked: str
    """Which images were opened to see whether they decode, in words."""
    pixels: int = 1
    """``core.images.READING`` of the version that reads them."""
    left_out: tuple[str, ...] = ()
    """Files in neither split, because they cannot be used: paths in the source."""
    dropped: tuple[str, ...] = ()
    """Training files left out because a held-out file has the same bytes: paths in the source."""
    mean: tuple[float, ...] | None = None
    """Of each channel, scaled to [0, 1], as given or of training images; None where each network has its own."""
    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""
    duplicates: int | None = None
    """Held-out files that were found in training too, byte for byte; None where nobody looked."""
    contradictory: int | None = None
    """Training files of which another class has a copy, byte for byte; None where nobody looked."""

    @property
    def pixel(self) -> Channels:
        """Return what a pixel consists of."""
        return Channels(self.config.get("channels", 3), self.config.get("bits", 8))

    @property
    def judged_by_teacher(self) -> bool:
        """Whether the teacher's answers to held-out images are their labels."""
        return not self.labelled and self.task != "embedding"

    @property
    def teacher_images(self) -> int:
        """Training images that a teacher is fitted to: those with a class, or all where none has."""
        return self.train_images - (self.unlabelled if self.labelled else 0)


class TeacherRecord(Record):
    """The network that is imitated, ready for the data's classes."""

    later: ClassVar[frozenset[str]] = frozenset({"answers"})

    model: ModelSpec
    weights: FileRef
    preprocess: PreprocessSpec
    """The teacher's own: what it was trained on, and is judged with."""
    source: str
    """Where the weights came from, in words."""
    epochs: int
    """Epochs trained in this run before distillation (0: used as given)."""
    cost: Cost
    width: int
    """Token width of the last tap."""
    depth: int
    """Number of taps."""
    val_top1: float
    """Top-1 on the held-out images, percent, in ``precision``."""
    precision: str = ""
    """What it was fitted in, or judged in where it was not; float32 or bfloat16, empty in records that do not tell."""
    tune: str = ""
    """How pretrained weights were adapted to the data's classes, in words; empty where they were not."""
    probe_top1: float | None = None
    """Top-1 of a linear probe of the pretrained features on the tuning images, percent; None where there is none."""
    tuned_top1: float | None = None
    """Of all weights after their best epoch; None where they were not trained, or without tuning images."""
    tuning_images: int = 0
    """Training images that were held out to choose on."""
    tuned_epoch: int | None = None
    """Epochs behind the weights that were kept; 0: the linear probe was. None where nothing was adapted."""
    answers: FileRef | None = None
    """To held-out images of no class, whose labels they are: safetensors, ``answers`` int64 ``[N]``."""
    penalty: float | None = None
    """Of the probe's squared weights over standardised features, half of it added to the mean cross-entropy."""


def outputs_of(data: DataRecord, teacher: TeacherRecord) -> int:
    """Return how many numbers the networks of a run give for an image: classes, or an embedding's width."""
    return teacher.model.embedding or len(data.classes)


class StudentRecord(Record):
    """The network that is trained, as built and initialised."""

    model: ModelSpec
    strategy: Strategy
    weights: FileRef
    preprocess: PreprocessSpec
    cost: Cost
    width: int
    """Token width of the blocks that the strategy leaves as they are."""
    depth: int
    explanation: str
    """What the strategy did to the architecture, in words and numbers."""
    source: str = "random weights"
    """Where the first weights came from, in words; what does not come from there is random."""
    loaded: int = 0
    """Tensors taken from there."""
    not_loaded: tuple[str, ...] = ()
    """Every other tensor of the student or of the source, with the reason."""
    random_weights: FileRef | None = None
    """Where ``weights`` are the teacher's: the random ones of the same seed, for a control that has nothing of it."""


class CacheSummary(Record):
    """The teacher's answers as they were kept for training."""

    views: int
    """Distinct views that the teacher answered to."""
    bytes: int


class Snapshot(Record):
    """The student's raw weights after an epoch of its training.

    Not a ``FileRef``: whoever needs the room may delete snapshots, and the run must not train again for that.
    """

    epoch: int
    """Epochs trained."""
    path: str
    """Relative to the run directory, with forward slashes."""
    sha256: str
    bytes: int


class KeptWeights(Snapshot):
    """Weights of the trained student that may be exported or started from in place of the chosen ones."""

    score: float
    """On the held-out images, percent, in the training's precision; it flatters the best ones, which it chose."""


class DistillRecord(Record):
    """The trained student."""

    volatile: ClassVar[frozenset[str]] = frozenset({"kept"}) | frozenset(
        {"seconds", "cache", "snapshots", "shares", "first_shares", "gradient_norms", "first_gradient_norms", "scales"}
    )

    model: ModelSpec
    weights: FileRef
    chosen: Literal["raw", "ema"]
    val_top1_raw: float
    val_top1_ema: float | None
    epochs: int
    steps: int
    images: int = 0
    """Training images of an epoch that it was trained on: full batches alone; 0 in records that do not tell."""
    left_over: int = 0
    """The others, which filled no batch; shuffled, so that other images are left over in each epoch."""
    seconds: float
    """Wall time of training, summed over resumed sessions."""
    losses: dict[str, float]
    """Mean of each weighted loss term over the last epoch."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Each term's part of the loss over the last epoch, from 0 to 1."""
    first_shares: dict[str, float] = Field(default_factory=dict)
    """The same over the first epoch."""
    gradient_norms: dict[str, float] = Field(default_factory=dict)
    """Norm of each term's gradient, on the block where all terms meet, at the first batch of the last epoch."""
    first_gradient_norms: dict[str, float] = Field(default_factory=dict)
    """The same at the first batch of all."""
    scales: dict[str, float] = Field(default_factory=dict)
    """Factor of each balanced term at the end; empty where the weights were fixed."""
    cache: CacheSummary | None = None
    """None when the teacher was run live, or not at all."""
    kept: dict[WhichWeights, KeptWeights] = Field(default_factory=dict)
    """The raw weights of the last epoch, the averaged ones, and those with the highest score of all evaluations, where
    there are any; none in records of earlier versions. The same file as ``weights`` where they are the same."""
    snapshots: tuple[Snapshot, ...] = ()
    """Raw weights of earlier epochs as they were on disk when training ended, by epoch."""
    precision: str = ""
    """What it was trained and judged in, float32 or bfloat16; empty in records that do not tell. ``stages.verify``
    judges the deployed artifacts anew, each in its own."""

    def file_of(self, which: WhichWeights, run: Path) -> FileRef:
        """Return the file of the weights called so; a UsageError is raised where they were not kept or are damaged."""
        kept = self.kept.get(which)
        if which != "chosen" and kept is None:
            have = ", ".join(("chosen", *self.kept))
            raise UsageError(f"run '{run}' has no '{which}' weights of its student; it has: {have}.")
        ref = FileRef(path=kept.path, sha256=kept.sha256, bytes=kept.bytes) if kept else self.weights
        if not is_intact(ref, run):
            raise UsageError(f"run '{run}': its student's weights {ref.path} are missing or damaged; finish it again.")
        return ref


class ControlRecord(Record):
    """The same student trained without the teacher, and what the teacher was therefore worth."""

    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})

    kind: Literal["none", "labels"] = "none"
    """none: nothing was trained, and nothing else here has a value. labels: by cross-entropy with the labels alone."""
    start: Literal["", "random", "same"] = ""
    """Its first weights where the student's are the teacher's: random ones, or the same; empty where they are not."""
    weights: FileRef | None = None
    chosen: Literal["raw", "ema"] = "raw"
    """Those of its weights that are better on the held-out images, as of the distilled student."""
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    """Wall time of training, summed over resumed sessions."""
    images: int = 0
    """Held-out images that both students answered, in float32."""
    val_top1: float | None = None
    """Its top-1 on them, percent."""
    distilled_top1: float | None = None
    """The distilled student's, percent."""
    gain: float | None = None
    """Points of top-1 that the distilled student has more on the same images: what the teacher was worth."""
    gain_low: float | None = None
    gain_high: float | None = None
    """Ends of the paired 95 % interval of ``gain``."""
    right: str = ""
    """Whether it classified each image rightly: bits in the images' order, as ``core.bits`` packs them."""
    distilled_right: str = ""
    """The same of the distilled student."""


class FoldRecord(Record):
    """The deployable graphs of the trained student."""

    graphs: dict[Graph, FileRef]
    """Weights of every graph that can be deployed, by its shape."""
    models: dict[Graph, ModelSpec]
    costs: dict[Graph, Cost]
    max_logit_difference: float | None
    """Largest absolute difference in logits, folded against kept, float32, over ``images`` real images."""
    tolerance: float
    images: int
    rank: int | None


class QatRecord(Record):
    """Weights of deployable graphs that were trained on with int8's rounding, for the precision int8-qat."""

    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})

    weights: dict[Graph, FileRef] = Field(default_factory=dict)
    """By the graph that they belong to: each that export may choose."""
    why_not: str = ""
    """Why there are none."""
    val_top1: dict[Graph, float] = Field(default_factory=dict)
    """Score of the fake-quantised network on the held-out images, percent, by its graph."""
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    """Wall time of training, summed over resumed sessions and graphs."""


@dataclass(frozen=True)
class FoldedInputs:
    """Records of the stages up to ``fold``, which the stages after it read."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord
