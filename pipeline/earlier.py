"""What a run decided when it began stays decided, wherever it is continued, as long as the same is asked of it.

Some of what `auto` means depends on the machine: whether compiling pays, what networks compute in, how a batch
divides among processes. Deciding anew on another machine would change the training, and so throw a finished one away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitcompress.core.errors import UsageError
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import RunConfig, validate
from vitcompress.stages.training.config import TrainingConfig

Training = TypeVar("Training", bound=TrainingConfig)


@dataclass(frozen=True)
class Earlier:
    """The last request of a run, and what it was resolved to."""

    asked: RunConfig
    resolved: RunConfig

    def same(self, section: Literal["teacher", "distill"], config: RunConfig) -> bool:
        """Whether the same training is asked for in the section; if not, it is trained anew in any case."""
        alike = getattr(config, section).identity() == getattr(self.asked, section).identity()
        return bool(alike and config.image_size == self.asked.image_size)


def earlier_of(root: Path) -> Earlier | None:
    """Of the run at ``root``; None before its first resolution, or if another version wrote it."""
    if not (root / "state.json").is_file():
        return None
    state: dict[str, Any] = RunDirectory(root).state()
    try:
        return Earlier(validate(state["asked"]), validate(state["resolved"]))
    except (KeyError, UsageError):
        return None


def with_precision(config: RunConfig, earlier: Earlier | None) -> RunConfig:
    """``config`` with the teacher's precision and the student's first weights as they were decided.

    Before names and devices are resolved.
    """
    if earlier is None:
        return config
    config = _with_init(config, earlier)
    if not earlier.same("distill", config):
        return config
    kept = {"teacher_precision": earlier.resolved.distill.teacher_precision}
    return config.model_copy(update={"distill": config.distill.model_copy(update=kept)})


def _with_init(config: RunConfig, earlier: Earlier) -> RunConfig:
    """Whether timm's weights could be had is decided once, for one student of one teacher."""
    asked, resolved = earlier.asked, earlier.resolved.student
    same = config.student == asked.student and (config.teacher.model, config.teacher.args) == (
        asked.teacher.model,
        asked.teacher.args,
    )
    if config.student.init != "auto" or not same:
        return config
    kept = {"init": resolved.init, "init_reason": resolved.init_reason}
    return config.model_copy(update={"student": config.student.model_copy(update=kept)})


def with_sizes(models: RunConfig, config: RunConfig, earlier: Earlier | None, processes: int) -> RunConfig:
    """``models`` with batch sizes, where they still divide, and compilation as they were decided for these images.

    Args:
        models: resolved so far.
        config: as requested, which ``models`` came from.
        earlier: None also when the images are others.
        processes: that share a batch.
    """
    if earlier is None:
        return models
    update = {}
    if earlier.same("teacher", config):
        update["teacher"] = _as(models.teacher, earlier.resolved.teacher, processes)
    if earlier.same("distill", config):
        update["distill"] = _as(models.distill, earlier.resolved.distill, processes)  # type: ignore[assignment]
    return models.model_copy(update=update)


def _as(config: Training, earlier: Training, processes: int) -> Training:
    kept: dict[str, Any] = {"compile": earlier.compile, "compile_reason": earlier.compile_reason}
    kept |= {"precision": earlier.precision, "precision_reason": earlier.precision_reason}
    if isinstance(earlier.batch_size, int) and earlier.batch_size % (earlier.accumulation * processes) == 0:
        kept["batch_size"] = earlier.batch_size
    return config.model_copy(update=kept)
