"""The folder that a run belongs in, and what must be said of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import spoken
from vitcompress.pipeline.config import RunConfig
from vitcompress.stages.images.sources import source_of


def refuse_inside_data(root: Path, config: RunConfig) -> None:
    """Raise a UsageError for a run below its own images, which would change what it is made of."""
    folders = [config.data.source] if source_of(config.data.source).is_path else []
    for data in map(Path, [*folders, *filter(None, [config.data.unlabelled])]):
        if root.resolve().is_relative_to(data.resolve()):
            raise UsageError(f"output '{root}' is inside the data folder '{data}'; give an --output outside it.")


def identity(config: RunConfig) -> dict[str, Any]:
    """Return what may not change within one output folder."""
    start = {"start": config.student.start} if config.student.start else {}
    return {
        **start,
        "teacher": config.teacher.model,
        "student": config.student.model,
        "strategy": config.student.strategy,
        "data": config.data.source,
        "geometry": config.geometry,
        "seed": config.seed,
    }


def default_output(config: RunConfig) -> Path:
    """Return ``runs/TEACHER-STUDENT-STRATEGY-DATA[-seedN][-from-RUN]``, from short names where they were given so."""
    data = Path(config.data.source).name if Path(config.data.source).exists() else config.data.source
    parts = [spoken(config.teacher.model), spoken(config.student.model), config.student.strategy, data]
    parts += [f"seed{config.seed}"] if config.seed else []
    parts += [f"from-{Path(config.student.start).name}"] if config.student.start else []
    return Path("runs") / "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)


def notes(config: RunConfig) -> list[str]:
    """Return what must be said plainly on screen and in the report."""
    if config.geometry != "reduced":
        return []
    return [
        "reduced geometry: the figures show that the pipeline works and say nothing about the full-size models (for "
        "those: --data DIR)."
    ]
