"""Export the teacher and every deployable graph, choose the student's, make its reduced precisions and its engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact, Precision
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import FoldedInputs as Inputs
from vitcompress.exporters import targets
from vitcompress.exporters.targets import BuildOptions
from vitcompress.stages.export.config import DEFAULT_PRECISIONS, ExportConfig
from vitcompress.stages.export.graphs import export_graph, held_out
from vitcompress.stages.export.precisions import reduce_graph
from vitcompress.stages.export.projector import choose_graph


def run(config: ExportConfig, inputs: Inputs, context: Context) -> ExportRecord:
    """Return ONNX graphs of teacher and student in fp32; of the deployed one, every precision and engine asked for.

    A reduced precision or an engine that cannot be made is told with its reason; what was made stays. A ResultError is
    raised where a graph cannot be exported or disagrees with torch, or the fold is less exact than asked; an
    EnvironmentLacksError where this machine cannot build a target that was asked for by name.
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
    graph, why = choose_graph(config, fold, student, images.given, context)
    spec, weights = fold.models[graph], fold.graphs[graph]
    reduced, missing = reduce_graph(config, student[graph], spec, weights, inputs.data, images, context)
    named = ", ".join(config.engines)
    asked = f"asked for with export.target: {named}" if named else "no engine was asked for"
    engines = _engines(config, {"fp32": student[graph], **reduced}, missing, context)
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
        engines_why=config.target_reason or asked,
        not_made=_not_made(config, missing, engines),
    )


def _engines(
    config: ExportConfig,
    graphs: Mapping[Precision, OnnxArtifact],
    missing: Mapping[Precision, str],
    context: Context,
) -> tuple[EngineArtifact, ...]:
    """Build one artifact for each target and each precision; one that cannot be built has its reason."""
    options = BuildOptions(context.run.root, config.opt_batch, config.max_batch, config.compute_capabilities)
    found = []
    for name in config.engines:
        target = targets.get(name)
        for precision in config.precisions:
            try:
                if precision not in graphs:
                    raise ResultError(f"there is no {precision} graph to build it of: {missing[precision]}")
                if precision not in target.precisions:
                    raise ResultError(f"{target.title} does not run {precision}")
                made = target.build(graphs[precision], options)
                assert isinstance(made, EngineArtifact)  # noqa: S101 - of a target whose kind is "engine"
            except ResultError as error:
                context.say(f"no {precision} engine: {error}")
                made = EngineArtifact(status="unavailable", flavour=name, precision=precision, reason=str(error))
            found.append(made)
    return tuple(found)


def _not_made(
    config: ExportConfig, missing: Mapping[Precision, str], engines: Sequence[EngineArtifact]
) -> tuple[str, ...]:
    """Return what a target or precision named by the user lacks; of defaults, nothing is owed."""
    graphs = [f"{one} ONNX: {why}" for one, why in missing.items()] if config.precision != DEFAULT_PRECISIONS else []
    by_name = not config.target_reason
    failed = [one for one in engines if by_name and one.file is None and one.precision not in missing]
    return (*graphs, *(f"{one.flavour} {one.precision} engine: {one.reason}" for one in failed))
