"""Decide what a training computes in, or that steps are to tell, and how often it is evaluated."""

from __future__ import annotations

import math
from typing import TypeVar

from vitcompress.core.machine import bfloat16_units
from vitcompress.core.records import DataRecord
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.defaults import Choice
from vitcompress.stages.training.compilation import RATE
from vitcompress.stages.training.config import TrainingConfig

Training = TypeVar("Training", bound=TrainingConfig)

_EVALUATING = 0.1
"""Share of a training's arithmetic that its evaluations may take."""
_WORTH_SECONDS = 60
"""Measuring both precisions takes seconds: a training of less arithmetic than this is not kept waiting for it."""


def resolve_speed(
    config: Training, data: DataRecord, device: str, geometry: str, *, own: float, teacher: float, epochs: int
) -> Training:
    """``config`` with ``eval_every`` and ``precision`` decided.

    Args:
        config: of the training.
        data: how many images train and are held out.
        device: ``cpu`` or ``cuda``.
        geometry: ``full`` or ``reduced``.
        own: operations of the trained network for one image, forward.
        teacher: those of a frozen one beside it, 0 for none.
        epochs: passes over the training images.
    """
    operations = float(data.train_images) * epochs * (3 * own + teacher)
    precision, why = _precision(config, device, geometry, operations)
    update = {"eval_every": _eval_every(config, data, own, teacher, epochs), "precision": precision}
    return config.model_copy(update={**update, "precision_reason": why})


def speed_choices(asked: RunConfig, resolved: RunConfig, data: DataRecord) -> list[Choice]:
    """What was decided here, of both trainings, with its reason.

    Args:
        asked: before.
        resolved: after.
        data: how many images train and are held out.
    """
    found = []
    for section in ("teacher", "distill"):
        before, after = getattr(asked, section), getattr(resolved, section)
        if before.eval_every == "auto":
            reason = (
                f"more often, evaluations of {data.val_images:,} images would take over a tenth of the training"
                if after.eval_every > 1
                else "evaluations take less than a tenth of the training"
            )
            found.append(Choice(f"{section}.eval_every", after.eval_every, reason))
        if before.precision == "auto" or before.precision_reason:
            found.append(Choice(f"{section}.precision", after.precision, after.precision_reason))
    return found


def _eval_every(config: TrainingConfig, data: DataRecord, own: float, teacher: float, epochs: int) -> int:
    """Epochs between evaluations: backward costs twice what forward does, and raw and averaged weights are judged."""
    if config.eval_every != "auto":
        return config.eval_every
    judged = 1 if config.ema_decay is None else 2
    share = judged * own * data.val_images / (data.train_images * (3 * own + teacher))
    return max(1, min(math.ceil(share / _EVALUATING), epochs))


def _precision(config: TrainingConfig, device: str, geometry: str, operations: float) -> tuple[str, str]:
    """The precision, or ``measure`` where steps are to tell, and why (empty where it was asked for)."""
    if config.precision != "auto" or config.precision_reason:  # decided when the run began, perhaps elsewhere
        return config.precision, config.precision_reason
    if device == "cuda":
        import torch

        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU multiplies bfloat16 in hardware"
        return "float32", "the GPU does not multiply bfloat16 in hardware"
    units = bfloat16_units()
    if not units:
        return "float32", "the CPU has neither AMX nor AVX512-BF16"
    if geometry == "reduced":
        return "float32", "the operators of the reduced geometry are too small for bfloat16 to pay"
    seconds = operations / RATE[device]
    if seconds < _WORTH_SECONDS:
        return "float32", "under a minute of arithmetic is too short to measure whether bfloat16 pays"
    return "measure", f"the CPU has {units[0]}: a few steps in float32 and in bfloat16 decide when training begins"
