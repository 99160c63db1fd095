"""Settings of distillation (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from stages.training.config import TrainingConfig


class DistillConfig(TrainingConfig):
    """How the student learns from the teacher: ``L = (1-a) CE + a tau^2 KL + b w feature`` (DESIGN 3.2)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    epochs: int = Field(100, gt=0)
    """Passes over the training images."""
    logits: Literal["soft", "hard"] = "soft"
    """Distillation of logits: KL to the teacher's softened answer, or cross-entropy with its argmax."""
    alpha: float = Field(0.9, ge=0, le=1)
    """a: share of the logit distillation; 1 - a is the labels' share."""
    tau: float = Field(1.0, gt=0)
    """Temperature of soft distillation."""
    feature: Literal["spectral", "mse", "none"] = "spectral"
    """Feature loss over the layer pairs."""
    beta: float = Field(1.0, ge=0)
    """b: switch of the feature loss in the papers' formula."""
    feature_weight: float = Field(0.2, ge=0)
    """w: weight of the feature loss."""
    pairs: tuple[tuple[int, int], ...] | Literal["last"] = "last"
    """(student layer, teacher layer) pairs, counted from 0, negative from the end; `last`: the two last layers."""
