"""Settings of a teacher on a few digits, and what such a run says."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from small_run import SETTLED, TEACHER, TEACHER_ARGS

from vitcompress.core.context import Context
from vitcompress.core.records import TeacherRecord
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.models.build import build_model
from vitcompress.stages.teacher.config import TeacherConfig


def config(**changes: Any) -> TeacherConfig:
    values: dict[str, Any] = {
        **SETTLED,
        "model": TEACHER,
        "args": TEACHER_ARGS,
        "batch_size": 20,
        "lr": 2e-3,
        "min_lr": 1e-5,
        "warmup_epochs": 0.5,
        "tune_epochs": 2,
        "ema_decay": None,
    }
    return TeacherConfig(**{**values, **changes})


def kept(record: TeacherRecord, context: Context) -> dict[str, torch.Tensor]:
    return load_file(context.run.root / record.weights.path)


def top1_by_hand(record: TeacherRecord, split: Any, context: Context) -> float:
    model = build_model(record.model).eval()
    model.load_state_dict(kept(record, context))
    right = 0
    with torch.no_grad():
        for images, labels in eval_loader(split, record.preprocess, batch_size=8, workers=0):
            right += int((model(images).argmax(1) == labels).sum())
    return 100 * right / len(split)
