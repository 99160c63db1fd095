"""Judge the deployed student's measurements against the limits."""

from __future__ import annotations

from dataclasses import dataclass

from core.artifact_records import BundleRecord, ExportRecord, GatesRecord, VerifyRecord
from core.context import Context
from stages.gates.config import GatesConfig
from stages.gates.judge import Judged, judge, passed
from stages.gates.measured import measurements, nothing
from stages.gates.subjects import Subject, subjects


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    export: ExportRecord
    verify: VerifyRecord
    bundle: BundleRecord


def run(config: GatesConfig, inputs: Inputs, context: Context) -> GatesRecord:
    """One row a limit and artifact, and whether the run passes.

    A run that lacks an artifact asked for by name does not pass, whatever the limits say.
    """
    judged = [_judged(config, inputs, subject) for subject in subjects(config, inputs.export, inputs.bundle)]
    rows = judge(judged, require_conclusive=config.require_conclusive)
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
