"""A distillation of two epochs on a few digits, and its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_run import SETTLED, data_record, student_record, teacher_record

from vitcompress.core.context import Context
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Inputs


def config(**changes: Any) -> DistillConfig:
    values: dict[str, Any] = {
        **SETTLED,
        "batch_size": 40,
        "epochs": 2,
        "lr": 1e-3,
        "min_lr": 1e-5,
        "warmup_epochs": 0.0,
        "compile": "off",
        "keep_every": None,
    }
    return DistillConfig(**{**values, **changes})


def given(context: Context, digits_folder: Path, strategy: str = "lift") -> Inputs:
    student = student_record(context, strategy)
    return Inputs(data_record(str(digits_folder), context), teacher_record(context), student)
