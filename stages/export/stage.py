"""Export the teacher and every deployable graph, choose the student's, make reduced precisions and engines of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact, Precision, arithmetic_of
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import FoldedInputs, Graph, QatRecord
from vitcompress.core.words import counted
from vitcompress.exporters import targets
from vitcompress.exporters.runners import provider_for
from vitcompress.stages.export.config import DEFAULT_PRECISIONS, ExportConfig
from vitcompress.stages.export.engines import Network, build_engines
from vitcompress.stages.export.graphs import HeldOut, export_graph, held_out
from vitcompress.stages.export.precisions import reduce_graph
from vitcompress.stages.export.projector import choose_graph
from vitcompress.stages.export.teacher import reduce_teacher, teacher_engines
from vitcompress.stages.training.device import make_accelerator


@dataclass(frozen=True)
class Inputs(FoldedInputs):
    """Records this stage reads."""

    qat: QatRecord = field(default_factory=QatRecord)


def run(config: ExportConfig, inputs: Inputs, context: Context) -> ExportRecord:
    """Return ONNX graphs of teacher and student in fp32; of the deployed one, every precision and engine asked for.

    The record also has the teacher's graphs and engines, which the student's are compared with. These are made once,
    and reused while their inputs stay the same. A reduced precision or an engine that cannot be made is recorded with
    its reason; what was made stays.

    A ResultError is raised where a graph cannot be exported or disagrees with torch, or the fold is less exact than
    asked; an EnvironmentLacksError where this machine cannot build a target that was asked for by name.
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
    of = inputs.teacher
    teacher = export_graph(config, "teacher", of.model, of.weights, of.cost, teacher_images, context)
    graph, why = choose_graph(config, fold, student, images.given, context)
    spec, weights = fold.models[graph], fold.graphs[graph]
    wanted = [one for one in config.precisions[1:] if one != "int8-qat"]
    reduced, missing = reduce_graph(config, wanted, student[graph], spec, weights, inputs.data, images, context)
    if "int8-qat" in config.precisions:
        try:
            reduced |= _trained_for_int8(config, graph, inputs, images, context)
        except ResultError as error:
            missing["int8-qat"] = str(error)
    named = ", ".join(config.engines)
    asked = f"asked for with export.target: {named}" if named else "no engine was asked for"
    graphs, qat_weights = {"fp32": student[graph], **reduced}, inputs.qat.weights.get(graph)
    network = Network(graphs, missing, spec, weights, inputs.data, images, qat_weights=qat_weights)
    engines = build_engines(config, network, context)
    compared = {arithmetic_of(one.precision) for one in engines if one.file is not None}
    if provider_for(make_accelerator(context.device).device.type) == "cuda":
        # On a CPU fp32 stands for them: int8 of a large teacher takes minutes.
        compared |= {arithmetic_of(one) for one in reduced}
    of_teacher, not_of_teacher = reduce_teacher(config, teacher, of, compared, inputs.data, teacher_images, context)
    as_teacher = Network(
        {"fp32": teacher, **of_teacher}, not_of_teacher, of.model, of.weights, inputs.data, teacher_images, "teacher"
    )
    return ExportRecord(
        deployed=graph,
        deployed_why=why,
        preprocess=images.preprocess,
        student=student,
        reduced=reduced,
        missing=missing,
        teacher=teacher,
        teacher_reduced=of_teacher,
        teacher_engines=teacher_engines(config, as_teacher, of, engines, context),
        teacher_preprocess=teacher_images.preprocess,
        engines=engines,
        engines_why=config.target_reason or asked,
        not_made=_not_made(config, missing, engines),
    )


def _trained_for_int8(
    config: ExportConfig, graph: Graph, inputs: Inputs, images: HeldOut, context: Context
) -> dict[Precision, OnnxArtifact]:
    """Return the int8 graph of the weights that were trained for it; a ResultError is raised where there is none.

    It is made of an fp32 graph of these weights, and compared with them in torch.
    """
    fold, qat = inputs.fold, inputs.qat
    if graph not in qat.weights:
        raise ResultError(qat.why_not)
    spec, weights = fold.models[graph], qat.weights[graph]
    fp32 = export_graph(config, f"student-{graph}-qat", spec, weights, fold.costs[graph], images, context)
    made, missing = reduce_graph(config, ("int8-qat",), fp32, spec, weights, inputs.data, images, context)
    for why in missing.values():
        raise ResultError(why)
    more = f"; weights trained with this rounding for {counted(qat.epochs, 'epoch')} more"
    how = made["int8-qat"].reduced
    told = how and how.model_copy(update={"method": how.method + more})
    return {"int8-qat": made["int8-qat"].model_copy(update={"reduced": told})}


def _not_made(
    config: ExportConfig, missing: Mapping[Precision, str], engines: Sequence[EngineArtifact]
) -> tuple[str, ...]:
    """Return what a target or precision named by the user lacks; of defaults, nothing is owed."""
    graphs = [f"{one} ONNX: {why}" for one, why in missing.items()] if config.precision != DEFAULT_PRECISIONS else []
    by_name = not config.target_reason
    failed = [one for one in engines if by_name and one.file is None and one.precision not in missing]
    return (*graphs, *(f"{one.flavour} {one.precision}: {one.reason}" for one in failed))
