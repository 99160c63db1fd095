"""What the bundle is made of."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.artifact_records import ExportRecord, VerifyRecord
from vitcompress.core.records import DataRecord, DistillRecord, FoldRecord, StudentRecord, TeacherRecord


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord
    export: ExportRecord
    verify: VerifyRecord
