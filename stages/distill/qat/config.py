"""Settings of quantisation-aware distillation (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record
from vitcompress.core.records import Graph
from vitcompress.stages.distill.config import DistillConfig


class QatConfig(Record):
    """How the student goes on learning with int8's rounding; read where `export.precision` has int8-qat."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    epochs: int = Field(2, gt=0)
    """Passes over the training images, after those of `distill`."""
    lr_factor: float = Field(0.1, gt=0, le=1)
    """Peak learning rate as a share of `distill.lr`: the weights are trained already."""


class QatJob(Record):
    """What the stage is given: the setting, and the training that it comes to."""

    qat: QatConfig
    training: DistillConfig
    """The distillation's settings, shorter, at a lower rate, and in float32."""
    projector: Literal["fold", "keep", "auto"]
    """`export.projector`, which decides the graphs that may be deployed."""
    calibration_images: int
    version: int
    """Of the distillation's code."""


def qat_job(
    qat: QatConfig, distill: DistillConfig, projector: Literal["fold", "keep", "auto"], images: int, version: int
) -> QatJob:
    """Return the job; ``distill.lr`` is decided wherever it is trained with.

    In float32, because bfloat16 has 8 bits of mantissa: it would round the 127 levels of int8 once more.
    """
    rate = 1.0 if isinstance(distill.lr, str) else distill.lr * qat.lr_factor
    training = distill.model_copy(
        update={
            "lr": rate,
            "min_lr": rate / 100,
            "epochs": qat.epochs,
            "warmup_epochs": qat.epochs / 10,
            "eval_every": 1,
            "keep_every": None,
            "precision": "float32",
            "compile": "off",
            "freeze": (),  # rounding moves all weights
            "early_stop": None,
            "scheduler": "cosine",
            "scheduler_args": {},
        }
    )
    return QatJob(qat=qat, training=training, projector=projector, calibration_images=images, version=version)


def trainable(training: DistillConfig, graph: Graph, depth: int) -> DistillConfig:
    """Return the settings for a graph: less the features that it has no tap of.

    A folded lift has no lifted tokens, its last tap; and a projector of a feature loss was dropped after distillation.
    """
    terms = [term for term in training.features if term.match == "pool"]
    if graph == "lift-folded":
        terms = [
            term.model_copy(update={"pairs": kept})
            for term in terms
            if term.pairs != "last" and (kept := tuple(pair for pair in term.pairs if pair[0] % depth != depth - 1))
        ]
    return training.model_copy(update={"features": tuple(terms)})
