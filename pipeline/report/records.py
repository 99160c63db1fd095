"""The records of a finished run that its report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.core.artifact_records import BundleRecord, ExportRecord
from vitcompress.core.measured_records import GatesRecord, VerifyRecord
from vitcompress.core.records import (
    ControlRecord,
    DataRecord,
    DistillRecord,
    FoldRecord,
    QatRecord,
    StudentRecord,
    TeacherRecord,
)


@dataclass(frozen=True)
class Records:
    """What the stages handed on, by the stage's name."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord
    export: ExportRecord
    verify: VerifyRecord
    bundle: BundleRecord
    gates: GatesRecord
    analyze: AnalyzeRecord | None = None
    """None where the features were not analysed, as in runs of earlier versions."""
    dynamics: DynamicsRecord | None = None
    control: ControlRecord = field(default_factory=ControlRecord)
    qat: QatRecord = field(default_factory=QatRecord)
