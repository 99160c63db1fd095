"""The plan of a run: its stages in order, as data. To add a step, add a row here and a folder under ``stages/``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.core.artifact_records import BundleRecord, ExportRecord, GatesRecord, VerifyRecord
from vitcompress.core.record import Record
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord, FoldRecord, StudentRecord, TeacherRecord
from vitcompress.pipeline.config import RunConfig
from vitcompress.stages.analyze.config import AnalyzeConfig
from vitcompress.stages.bundle.config import BundleConfig
from vitcompress.stages.distill.control.config import ControlJob, control_job

_DISTILL_VERSION = 4
"""Of the stage ``distill``, whose code trains the control too."""


def _no_facts(config: RunConfig) -> Any:
    return None


def _never(config: RunConfig) -> bool:
    return False


def _images(config: RunConfig) -> Any:
    """The listing of the images: what is on disk, whatever the config says; and what is done about bad ones.

    That is no part of the config's own identity: where no image is bad, it changes nothing for later stages.
    """
    from vitcompress.stages.images.listing import data_digest

    data = config.data
    depth = ("full" if data.check == "auto" else data.check) if data.on_bad_image == "skip" else None
    return [data_digest(data), data.on_bad_image, depth, data.on_duplicates]


def _teacher_file(config: RunConfig) -> Any:
    return _content(config.teacher.weights)


def _student_file(config: RunConfig) -> Any:
    return _content(config.student.weights)


def _content(checkpoint: str | None) -> str | None:
    """Digest of a checkpoint, so that replacing the file is noticed."""
    from pathlib import Path

    from vitcompress.core.files import sha256_of

    path = Path(checkpoint) if checkpoint else None
    return sha256_of(path) if path and path.is_file() else None


def _reading(config: RunConfig) -> AnalyzeConfig:
    return AnalyzeConfig(analysis=config.analysis, student=config.student.model, student_args=config.student.args)


def _control(config: RunConfig) -> ControlJob:
    return control_job(config.control, config.distill, _DISTILL_VERSION)


def _no_control(config: RunConfig) -> bool:
    return config.control.kind == "none"


def _bundling(config: RunConfig) -> BundleConfig:
    export = config.export
    return BundleConfig(
        deploy=export.deploy,
        max_int8_drop=export.max_int8_drop,
        targets=tuple(export.target),
        opt_batch=export.opt_batch,
        max_batch=export.max_batch,
    )


def _machine(config: RunConfig) -> Any:
    """What latencies depend on: a run carried to another machine, GPU or device is measured again."""
    from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
    from vitcompress.pipeline.machine import environment

    gpu = gpu_name_and_capability() if gpu_present() else None
    return {**environment(), "device": config.device, "gpu": gpu}


@dataclass(frozen=True)
class Stage:
    """One step. ``module`` has ``Inputs`` and ``run(config, inputs, context) -> record``, imported only to run it."""

    name: str
    module: str
    record: type[Record]
    version: int
    """Raised when the stage's code changes what it computes; earlier results are then not reused."""
    config: Callable[[RunConfig], Record]
    needs: tuple[str, ...] = ()
    """Stages whose records it reads."""
    facts: Callable[[RunConfig], Any] = _no_facts
    """JSON values outside config and records that its result depends on."""
    seeded: bool = False
    """Whether the seed changes its result."""
    collective: bool = False
    """Whether every process of a run with several takes part; the others are the main one's alone."""
    outside_kept: bool = False
    """Whether the run keeps its own copy of what ``facts`` looks at, so that later steps need the original no more."""
    idle: Callable[[RunConfig], bool] = _never
    """Whether these settings ask nothing of it: its record says so, and nobody is told or called to help."""


STAGES: tuple[Stage, ...] = (
    Stage("data", "vitcompress.stages.data.stage", DataRecord, 3, lambda run: run.data, facts=_images),
    Stage(
        "teacher",
        "vitcompress.stages.teacher.stage",
        TeacherRecord,
        4,
        lambda run: run.teacher,
        needs=("data",),
        facts=_teacher_file,
        seeded=True,
        collective=True,
        outside_kept=True,
    ),
    Stage(
        "analyze",
        "vitcompress.stages.analyze.stage",
        AnalyzeRecord,
        3,
        _reading,
        needs=("data", "teacher"),
        seeded=True,
    ),
    Stage(
        "student",
        "vitcompress.stages.student.stage",
        StudentRecord,
        3,
        lambda run: run.student,
        needs=("data", "teacher"),
        facts=_student_file,
        seeded=True,
    ),
    Stage(
        "distill",
        "vitcompress.stages.distill.stage",
        DistillRecord,
        _DISTILL_VERSION,
        lambda run: run.distill,
        needs=("data", "teacher", "student"),
        seeded=True,
        collective=True,
    ),
    Stage(
        "control",
        "vitcompress.stages.distill.control.stage",
        ControlRecord,
        1,
        _control,
        needs=("data", "teacher", "student", "distill"),
        seeded=True,
        collective=True,
        idle=_no_control,
    ),
    Stage(
        "dynamics",
        "vitcompress.stages.dynamics.stage",
        DynamicsRecord,
        3,
        lambda run: run.analysis,
        needs=("data", "teacher", "analyze", "student", "distill"),
        seeded=True,
    ),
    Stage("fold", "vitcompress.stages.fold.stage", FoldRecord, 1, lambda run: run.fold, ("data", "student", "distill")),
    Stage(
        "export",
        "vitcompress.stages.export.stage",
        ExportRecord,
        3,
        lambda run: run.export,
        needs=("data", "teacher", "student", "distill", "fold"),
    ),
    Stage(
        "verify",
        "vitcompress.stages.verify.stage",
        VerifyRecord,
        4,
        lambda run: run.verify,
        needs=("data", "teacher", "student", "distill", "fold", "export"),
        facts=_machine,
    ),
    Stage(
        "bundle",
        "vitcompress.stages.bundle.stage",
        BundleRecord,
        1,
        _bundling,
        needs=("data", "teacher", "student", "distill", "fold", "export", "verify"),
    ),
    Stage(
        "gates",
        "vitcompress.stages.gates.stage",
        GatesRecord,
        5,
        lambda run: run.gates,
        needs=("data", "control", "export", "verify", "bundle"),
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}


def with_needs(name: str) -> frozenset[str]:
    """A stage and all that it needs, directly or not."""
    return frozenset({name}.union(*(with_needs(need) for need in BY_NAME[name].needs)))
