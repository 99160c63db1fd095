"""Judge the deployed student's measurements, and the training itself, against the limits."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.artifact_records import BundleRecord, ExportRecord, GatesRecord, VerifyRecord
from vitcompress.core.context import Context
from vitcompress.core.records import ControlRecord, DataRecord
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.judge import Judged, judge, passed
from vitcompress.stages.gates.measured import measurements, nothing
from vitcompress.stages.gates.subjects import Subject, subjects
from vitcompress.stages.gates.training import at_chance, judged_training


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    control: ControlRecord
    export: ExportRecord
    verify: VerifyRecord
    bundle: BundleRecord


def run(config: GatesConfig, inputs: Inputs, context: Context) -> GatesRecord:
    """One row a limit and artifact, one on a student that never left chance, and whether the run passes.

    A run that lacks an artifact asked for by name does not pass, whatever the limits say.
    """
    judged = [_judged(config, inputs, subject) for subject in subjects(config, inputs.export, inputs.bundle)]
    judged.append(judged_training(config, inputs.control))
    rows = judge(judged, require_conclusive=config.require_conclusive)
    if config.above_chance:
        rows += at_chance(inputs.export.deployed, inputs.verify, len(inputs.data.classes))
    return GatesRecord(rows=rows, passed=passed(rows) and not inputs.export.not_made)


def _judged(config: GatesConfig, inputs: Inputs, subject: Subject) -> Judged:
    known = (
        measurements(inputs.export, inputs.verify, *subject.artifact)
        if subject.artifact
        else nothing(_no_engine(inputs))
    )
    required = any(alias in config.require for alias in subject.aliases)
    return Judged(subject.label, config.limits_of(*subject.aliases), known, required)


def _no_engine(inputs: Inputs) -> str:
    return "; ".join(dict.fromkeys(one.reason for one in inputs.export.engines)) or inputs.bundle.engine_why
