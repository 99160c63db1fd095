"""The trained student of another run, which this one starts from (torch-free); that run stays as it is."""

from __future__ import annotations

from pathlib import Path

from vitcompress.core.record import FileRef
from vitcompress.core.records import DataRecord, DistillRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.student.config import StudentConfig


def trained_student(config: StudentConfig) -> tuple[Path, FileRef, DataRecord]:
    """Return the run ``config.start``, the file of its student's weights, and what it was trained on.

    A UsageError is raised where there is no run, no trained student, or no such weights.
    """
    run = RunDirectory.existing(Path(config.start or ""))
    ref = run.load_record("distill", DistillRecord).file_of(config.start_weights, run.root)
    return run.root, ref, run.load_record("data", DataRecord)
