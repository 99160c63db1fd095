"""Settings of distillation (torch-free)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator

from vitcompress.core.record import Record
from vitcompress.stages.distill.losses.registry import built_in, check
from vitcompress.stages.training.config import TrainingConfig


class FeatureTerm(Record):
    """One feature loss: the mean over its layer pairs, times ``beta`` and its weight."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Annotated[str, AfterValidator(partial(check, "features")), Field(examples=built_in("features"))] = "spectral"
    """How taps are compared: `mse` the taps themselves, `spectral` their spectra over the patch grid [SKD], or a loss
    of another package (``stages.distill.losses``)."""
    pairs: tuple[tuple[int, int], ...] | Literal["last"] = "last"
    """[student layer, teacher layer] pairs, counted from 0, negative from the end; `last`: the two last layers."""
    weight: float = Field(0.2, ge=0)
    """w: weight of the term; 0 leaves it out."""
    match: Literal["pool", "projector"] = "pool"
    """Taps of different width: average the wider one's channels [SKD], or send the student's through a linear map to
    the teacher's width, both then batch-normalised; the map trains along and is dropped afterwards [DD]."""

    @field_validator("pairs", mode="before")
    @classmethod
    def _whole_pairs(cls, pairs: Any) -> Any:
        """Say in one sentence what is wrong with a list of pairs."""
        listed = pairs if isinstance(pairs, (list, tuple)) else ()
        whole = [
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(number) is int for number in pair)
            for pair in listed
        ]
        if pairs != "last" and not (whole and all(whole)):
            raise ValueError(
                f"given {pairs!r}; give 'last' or a list of [student layer, teacher layer] pairs of whole numbers, for "
                "example [[0, 0], [11, 23]] (features: [] for no feature loss)"
            )
        return pairs if pairs == "last" else tuple(tuple(pair) for pair in pairs)


class CacheConfig(Record):
    """How much of the disk the teacher's kept answers may take."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = frozenset({"max_gb", "folder"})

    max_gb: float = Field(20.0, gt=0)
    """Decimal gigabytes of disk that the answers of one teacher to these views may take."""
    folder: str | None = Field(None, min_length=1)
    """Folder that several runs of one teacher share; nothing is removed from it. null: RUN/cache."""


class DistillConfig(TrainingConfig):
    """How the student learns from the teacher: ``L = (1-a) CE + a tau^2 KL + b sum of w feature``.

    docs/distillation.md has the parts.

    ``alpha: 0`` with ``features: []`` trains the student alone: the teacher is neither built nor run.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = TrainingConfig.volatile | {"keep_every", "timeout_minutes"}
    later: ClassVar[frozenset[str]] = TrainingConfig.later | {"early_stop"}

    epochs: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Passes over the training images. auto: more, the fewer images there are (``pipeline.config.training``)."""
    early_stop: int | None = Field(None, gt=0)
    """End the training after so many evaluations in a row that are not better, beyond the paired 95 % interval on the
    held-out images, than the last one that was. null: never. The schedule stays that of `epochs`, and is cut off."""
    logits: Annotated[str, AfterValidator(partial(check, "logits")), Field(examples=built_in("logits"))] = "soft"
    """Distillation of logits: `soft` KL to the teacher's softened answer, `hard` cross-entropy with its argmax, or a
    loss of another package. `soft` becomes `sigmoid` with several labels an image, `embedding` with embeddings."""
    alpha: float = Field(0.9, ge=0, le=1)
    """a: share of the logit distillation; 1 - a is the labels' share. 1 where there are no labels to learn from."""
    tau: float = Field(1.0, gt=0)
    """Temperature of soft distillation."""
    teacher_errors: Literal["imitate", "replace"] = "imitate"
    """Of an image whose class is not the teacher's most likely one: imitate its answer all the same, as published, or
    replace it with the label. A teacher errs more on augmented images than on those that it is judged on."""
    features: tuple[FeatureTerm, ...] = (FeatureTerm(),)
    """Feature losses, any number at once; an empty list for none."""
    beta: float = Field(1.0, ge=0)
    """b: multiplies every feature loss."""
    balance: Literal["auto", "gradients", "fixed"] = "auto"
    """What the feature weights mean. fixed: they multiply the losses, as published. gradients: they multiply the
    gradients; a term of weight w gets a factor that keeps the norm of its gradient at b w times that of the answers'
    (labels and logits together), measured along the training. auto: gradients where there is a feature loss."""
    teacher_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the teacher computes in. auto: bfloat16 where the device multiplies it in hardware (GPUs, CPUs with AMX),
    but float32 for the small networks of the reduced geometry."""
    views: int = Field(0, ge=0)
    """Fixed augmented views of each image, used in turn over the epochs: the teacher runs once on each, and its
    answers are kept on disk. 0: new views in every epoch, and the teacher live beside the student."""
    cache: CacheConfig = CacheConfig()
    """How those answers are kept."""
    keep_every: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Epochs between snapshots of the student's raw (not averaged) weights, kept under RUN/student/snapshots to watch
    how it learned; not of the last epoch, whose weights are the result. auto: a tenth of `epochs`, rounded up; null:
    none. It changes nothing about the training, so a finished one is not done again: it takes effect with the next."""
    timeout_minutes: float = Field(10, gt=0)
    """With several processes, of the teacher's training too: minutes without a sign of life from one of them (it was
    stopped, or its network died) after which the run ends and names it."""

    @property
    def asks_teacher(self) -> bool:
        """Whether training uses anything of the teacher."""
        return self.alpha > 0 or self.beta * max((term.weight for term in self.features), default=0) > 0

    @property
    def balances(self) -> bool:
        """Whether feature losses get measured factors."""
        return self.balance != "fixed" and self.beta * max((term.weight for term in self.features), default=0) > 0
