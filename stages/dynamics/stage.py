"""Watch the student: its features before training, at every kept snapshot and after, beside the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from core.context import Context
from core.files import reference
from core.records import (
    AnalyzeRecord,
    DataRecord,
    DistillRecord,
    DynamicsRecord,
    FileRef,
    StudentRecord,
    TeacherRecord,
)
from stages.analysis.advice import selected_layers
from stages.analysis.approach import approach
from stages.analysis.config import AnalysisConfig
from stages.analysis.read import read_network
from stages.analysis.results import NetworkResult
from stages.analysis.sample import training_sample
from stages.analysis.store import load
from stages.analysis.write import write
from stages.models.build import build_model
from stages.models.geometry import shape_by_name
from stages.models.weights import load_own


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    analyze: AnalyzeRecord
    student: StudentRecord
    distill: DistillRecord
