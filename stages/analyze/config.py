"""What the teacher is read for (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from vitcompress.core.record import Record
from vitcompress.stages.analysis.config import AnalysisConfig


class AnalyzeConfig(Record):
    """How to read the teacher, and the student that the advice is for; put together from the run's settings."""

    analysis: AnalysisConfig
    student: str
    """timm's name; a pretrained tag may follow."""
    student_args: dict[str, Any] | Literal["auto"]
    """Arguments for timm.create_model."""
