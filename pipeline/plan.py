"""The plan of a run: its stages in order, as data. To add a step, add a row here and a folder under ``stages/``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.core.artifact_records import BundleRecord, ExportRecord
from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.measured_records import GatesRecord, VerifyRecord
from vitcompress.core.network_names import files_of
from vitcompress.core.record import Record
from vitcompress.core.records import (
    ControlRecord,
    DataRecord,
    DistillRecord,
    FoldRecord,
    QatRecord,
    StudentRecord,
    TeacherRecord,
)
from vitcompress.exporters import cuda
from vitcompress.pipeline.config import RunConfig, dump_yaml
from vitcompress.pipeline.machine import environment
from vitcompress.stages.analyze.config import AnalyzeConfig
from vitcompress.stages.bundle.config import BundleConfig
from vitcompress.stages.distill.control.config import control_job
from vitcompress.stages.distill.qat.config import QatJob, qat_job
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.start import trained_student
from vitcompress.stages.teacher.config import TeacherConfig

_DISTILL_VERSION = 4
"""Of the stage ``distill``, whose code trains the control and int8-qat too."""


def _images(config: RunConfig) -> Any:
    """Return the listing of the images: what is on disk, whatever the config says; and what is done about bad ones.

    That is no part of the config's own identity: where no image is bad, it changes nothing for later stages.
    """
    from vitcompress.stages.images.sources import data_digest

    data = config.data
    depth = ("full" if data.check == "auto" else data.check) if data.on_bad_image == "skip" else None
    return [data_digest(data), data.on_bad_image, depth, data.on_duplicates]


def _content(checkpoint: str | None) -> str | None:
    """Return the digest of a checkpoint, so that replacing the file is noticed."""
    path = Path(checkpoint) if checkpoint else None
    return sha256_of(path) if path and path.is_file() else None


def _outside(network: TeacherConfig | StudentConfig) -> Any:
    """Return the digests of a checkpoint, and of the folder or the code of a user's own that a name means."""
    files = files_of(network.model, network.args)
    if isinstance(network, StudentConfig) and network.start:
        with suppress(UsageError):  # it is gone, or not finished: said where its weights are read
            return [*map(_content, files), trained_student(network)[1].sha256]
    return [_content(network.weights), *map(_content, files)] if files else _content(network.weights)


def _machine(config: RunConfig) -> Any:
    """Return what latencies depend on: a run carried to another machine, GPU or device is measured again."""
    gpu = cuda.gpu_name_and_capability() if cuda.gpu_present() else None
    return {**environment(), "device": config.device, "gpu": gpu}


def _reading(run: RunConfig) -> AnalyzeConfig:
    return AnalyzeConfig(analysis=run.analysis, student=run.student.model, student_args=run.student.args)


def qat_of(run: RunConfig) -> QatJob:
    """Return the job of the stage ``qat``."""
    export = run.export
    return qat_job(run.qat, run.distill, export.projector, export.calibration_images, _DISTILL_VERSION)


def _bundling(run: RunConfig) -> BundleConfig:
    names = ("deploy", "max_int8_drop", "opt_batch", "max_batch")
    judging = None if run.export.slim else run.model_dump(mode="json", include={"verify", "gates"})
    own = {name: getattr(run.export, name) for name in names}
    written = hashlib.sha256(dump_yaml(run).encode()).hexdigest()  # as config.yaml has it
    return BundleConfig(targets=tuple(run.export.target), judging=judging, config_sha256=written, **own)


@dataclass(frozen=True)
class Stage:
    """One step: ``module`` of vitcompress.stages has ``Inputs`` and ``run(config, inputs, context) -> record``."""

    name: str
    module: str
    """Imported only to run it."""
    record: type[Record]
    version: int
    """Raised when the stage's code changes what it computes; earlier results are then not reused."""
    config: Callable[[RunConfig], Record]
    """Its own section, and nothing else of the config."""
    needs: tuple[str, ...] = ()
    """Stages whose records it reads."""
    facts: Callable[[RunConfig], Any] = lambda run: None
    """JSON values outside config and records that its result depends on."""
    seeded: bool = False
    """Whether the seed changes its result."""
    collective: bool = False
    """Whether every process of a run with several takes part; the others are the main one's alone."""
    outside_kept: bool = False
    """Whether the run keeps its own copy of what ``facts`` looks at, so that later steps need the original no more."""
    idle: Callable[[RunConfig], bool] = lambda run: False
    """Whether these settings ask nothing of it: its record says so, and nobody is told or called to help."""
    unasked: Callable[[RunConfig], bool] = lambda run: False
    """Whether these settings leave it out: it has no record, and what reads it does without."""

    def reads(self, run: RunConfig) -> tuple[str, ...]:
        """Return those of ``needs`` that have a record."""
        return tuple(need for need in self.needs if need not in {one.name for one in STAGES if one.unasked(run)})


_TRAINED = ("data", "teacher", "student", "distill")
_IN = "vitcompress.stages."
# fmt: off
STAGES: tuple[Stage, ...] = (
    Stage("data", _IN + "data.stage", DataRecord, 3, lambda run: run.data, facts=_images),
    Stage("teacher", _IN + "teacher.stage", TeacherRecord, 4, lambda run: run.teacher, ("data",),
          facts=lambda run: _outside(run.teacher), seeded=True, collective=True, outside_kept=True),
    Stage("analyze", _IN + "analyze.stage", AnalyzeRecord, 4, _reading, ("data", "teacher"), seeded=True),
    Stage("student", _IN + "student.stage", StudentRecord, 3, lambda run: run.student, ("data", "teacher"),
          facts=lambda run: _outside(run.student), seeded=True, outside_kept=True),
    Stage("distill", _IN + "distill.stage", DistillRecord, _DISTILL_VERSION, lambda run: run.distill,
          ("data", "teacher", "student"), seeded=True, collective=True),
    Stage("control", _IN + "distill.control.stage", ControlRecord, 1,
          lambda run: control_job(run.control, run.distill, _DISTILL_VERSION), _TRAINED, seeded=True, collective=True,
          idle=lambda run: run.control.kind == "none"),
    Stage("dynamics", _IN + "dynamics.stage", DynamicsRecord, 4, lambda run: run.analysis,
          ("data", "teacher", "analyze", "student", "distill"), seeded=True),
    Stage("fold", _IN + "fold.stage", FoldRecord, 1, lambda run: run.fold, ("data", "student", "distill")),
    Stage("qat", _IN + "distill.qat.stage", QatRecord, 1, qat_of, (*_TRAINED, "fold"), seeded=True, collective=True,
          unasked=lambda run: "int8-qat" not in run.export.precision),
    Stage("export", _IN + "export.stage", ExportRecord, 6, lambda run: run.export, (*_TRAINED, "fold", "qat")),
    Stage("verify", _IN + "verify.stage", VerifyRecord, 7, lambda run: run.verify, (*_TRAINED, "fold", "export"),
          facts=_machine),
    Stage("bundle", _IN + "bundle.stage", BundleRecord, 4, _bundling,
          (*_TRAINED, "fold", "export", "verify", "control")),
    Stage("gates", _IN + "gates.stage", GatesRecord, 5, lambda run: run.gates,
          ("data", "control", "export", "verify", "bundle")),
)
# fmt: on
BY_NAME = {stage.name: stage for stage in STAGES}


def with_needs(name: str) -> frozenset[str]:
    """Return a stage and all that it needs, directly or not."""
    return frozenset({name}.union(*(with_needs(need) for need in BY_NAME[name].needs)))
