"""What a run decided when it began stays decided, wherever and however it is continued.

Some of what `auto` means depends on the machine: whether compiling pays, what the teacher computes in, how a batch
divides among processes. Deciding anew on another machine would change the training, and so throw a finished one away.
"""

from __future__ import annotations

from typing import Any, TypeVar

from core.errors import UsageError
from core.rundir import RunDirectory
from pipeline.config import RunConfig, validate
from stages.training.config import TrainingConfig

Training = TypeVar("Training", bound=TrainingConfig)


def earlier_config(run: RunDirectory) -> RunConfig | None:
    """The config that this run was last resolved to; None before its first, or if another version wrote it."""
    resolved: Any = run.state().get("resolved")
    try:
        return None if resolved is None else validate(resolved)
    except UsageError:
        return None


def with_machine_decisions(config: RunConfig, earlier: RunConfig | None) -> RunConfig:
    """``config`` with `auto` replaced by what was decided from the machine before."""
    if earlier is None:
        return config
    distill = _compiled_as(config.distill, earlier.distill)
    if distill.teacher_precision == "auto":
        distill = distill.model_copy(update={"teacher_precision": earlier.distill.teacher_precision})
    return config.model_copy(update={"teacher": _compiled_as(config.teacher, earlier.teacher), "distill": distill})


def with_batches(config: RunConfig, earlier: RunConfig | None, processes: int) -> RunConfig:
    """``config`` with automatic batch sizes as before, where they divide among the processes; for unchanged images."""
    if earlier is None:
        return config
    return config.model_copy(
        update={
            "teacher": _batch_as(config.teacher, earlier.teacher, processes),
            "distill": _batch_as(config.distill, earlier.distill, processes),
        }
    )


def _compiled_as(config: Training, earlier: Training) -> Training:
    if config.compile != "auto":
        return config
    return config.model_copy(update={"compile": earlier.compile, "compile_reason": earlier.compile_reason})


def _batch_as(config: Training, earlier: Training, processes: int) -> Training:
    same = config.batch_size == "auto" and config.accumulation == earlier.accumulation
    if not same or isinstance(earlier.batch_size, str) or earlier.batch_size % (config.accumulation * processes):
        return config
    return config.model_copy(update={"batch_size": earlier.batch_size})
