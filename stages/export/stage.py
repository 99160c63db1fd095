"""Export the teacher and every deployable graph, choose the student's, make its reduced precisions and its engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, Precision
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import DataRecord, DistillRecord, FoldRecord, Graph, StudentRecord, TeacherRecord
from vitcompress.exporters import targets
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.engines import build_engines
from vitcompress.stages.export.graphs import export_graph, held_out
from vitcompress.stages.export.precisions import reduce_graph


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord


def run(config: ExportConfig, inputs: Inputs, context: Context) -> ExportRecord:
    """Return ONNX graphs of teacher and student in fp32; of the deployed one, every precision and engine asked for.

    A reduced precision or an engine that cannot be made is told with its reason; what was made stays.

    Raises:
        ResultError: a graph cannot be exported or disagrees with torch, or the fold is less exact than asked.
        EnvironmentLacksError: a target was asked for by name that this machine cannot build.
    """
    for name in config.engines:
        targets.get(name).require()  # first: asking for what is not here should not cost an export
    fold, own = inputs.fold, inputs.student.preprocess
    images = held_out(inputs.data, own, config)
    student = {
        graph: export_graph(config, f"student-{graph}", spec, fold.graphs[graph], fold.costs[graph], images, context)
        for graph, spec in fold.models.items()
    }
    teacher_images = held_out(inputs.data, inputs.teacher.preprocess, config)
    spec, weights, cost = inputs.teacher.model, inputs.teacher.weights, inputs.teacher.cost
    teacher = export_graph(config, "teacher", spec, weights, cost, teacher_images, context)
    graph, why = _deployed(config, fold)
    spec, weights = fold.models[graph], fold.graphs[graph]
    reduced, missing = reduce_graph(config, student[graph], spec, weights, inputs.data, images, context)
    engines = build_engines(config, {"fp32": student[graph], **reduced}, missing, context)
    return ExportRecord(
        deployed=graph,
        deployed_why=why,
        preprocess=images.preprocess,
        student=student,
        reduced=reduced,
        missing=missing,
        teacher=teacher,
        teacher_preprocess=teacher_images.preprocess,
        engines=engines,
        engines_why=config.target_reason or _asked(config),
        not_made=_not_made(config, missing, engines),
    )


def _deployed(config: ExportConfig, fold: FoldRecord) -> tuple[Graph, str]:
    """Return which student graph is deployed, and why.

    Raises:
        ResultError: folding was asked for, and is less exact than ``fold.tolerance``.
    """
    if "lift-folded" not in fold.models:
        return next(iter(fold.models)), "the strategy has one graph"
    if config.projector == "keep":
        return "lift-kept", "asked for with projector: keep"
    difference = fold.max_logit_difference
    if difference is None or not difference <= fold.tolerance:
        raise ResultError(
            f"folding changes logits by {difference:.3g}, more than fold.tolerance {fold.tolerance:g}; deploy the "
            "projector with --projector keep."
        )
    return "lift-folded", f"asked for with projector: fold; logits change by {difference:.2g}"


def _asked(config: ExportConfig) -> str:
    named = ", ".join(config.engines)
    return f"asked for with export.target: {named}" if named else "no engine was asked for"


def _not_made(
    config: ExportConfig, missing: Mapping[Precision, str], engines: Sequence[EngineArtifact]
) -> tuple[str, ...]:
    """Return what a target or precision named by the user lacks; of defaults, nothing is owed."""
    graphs = [f"{one} ONNX: {why}" for one, why in missing.items()] if config.precision_asked else []
    by_name = not config.target_reason
    failed = [one for one in engines if by_name and one.file is None and one.precision not in missing]
    return (*graphs, *(f"{one.flavour} {one.precision} engine: {one.reason}" for one in failed))
