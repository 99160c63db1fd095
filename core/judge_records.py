"""What a run hands to another machine, so that its bundle can be judged there; and what comes back from it."""

from __future__ import annotations

from typing import Any, Literal

from vitcompress.core.artifact_records import BundleRecord, ExportRecord
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.record import Record
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord, FoldRecord, StudentRecord, TeacherRecord


def subject_of(export: ExportRecord, bundle: BundleRecord, images_digest: str) -> str:
    """Return a SHA-256 over what is judged: the files of the bundle's models and the teacher's, and the images.

    Not over the bundle's manifest: that quotes latencies, so that it is another one after every measurement.
    """
    out = {(one.runtime, one.precision) for one in bundle.rejected}
    student = [one for one in export.artifacts if (one.target, one.precision) not in out]
    files = [
        [ref.sha256 for one in artifacts for ref in one.files] for artifacts in (student, export.teacher_artifacts)
    ]
    return fingerprint(files, export.preprocess, export.teacher_preprocess, images_digest)


class Judge(Record):
    """The records that judging a bundle needs, and its settings: ``judge/records.json`` of the bundle."""

    machine: str
    """Where torch's answers were recorded."""
    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    control: ControlRecord
    fold: FoldRecord
    export: ExportRecord
    bundle: BundleRecord
    """Without its files, which the bundle's manifest lists."""
    images_digest: str
    """``VerifyRecord.images_digest``."""
    settings: dict[str, Any]
    """Sections ``verify`` and ``gates`` of the run's config."""

    @property
    def subject(self) -> str:
        """What is judged (``subject_of``)."""
        return subject_of(self.export, self.bundle, self.images_digest)


class Verified(Record):
    """What one machine measured of a bundle: ``verified-MACHINE.json``. Units are those of ``VerifyRecord``."""

    kind: Literal["verified"] = "verified"
    schema_version: Literal[1] = 1
    machine: str
    """Its GPU or processor, and its name in the network."""
    at: str
    """When it was measured, UTC."""
    recorded_on: str
    """Where torch's answers come from, which accuracy is judged against."""
    subject: str
    """What was judged (``subject_of``)."""
    verify: VerifyRecord
    environment: dict[str, Any]
    """System and versions there."""
