"""The teacher's graphs and engines in other precisions: what the student's are compared with.

They do not depend on the student's settings. So they are made once, and reused from ``RUN/export`` while their inputs
stay the same. ``FILE.json`` beside each has the fingerprint of its inputs, and its record.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision, arithmetic_of
from vitcompress.core.context import Context
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.kept import Kind, keep, kept
from vitcompress.core.machine import processor
from vitcompress.core.records import DataRecord, TeacherRecord
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
from vitcompress.exporters.precision.modelopt import PACKAGES
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.engines import Network, build_engine
from vitcompress.stages.export.graphs import HeldOut
from vitcompress.stages.export.precisions import reduce_graph


def reduce_teacher(
    config: ExportConfig,
    graph: OnnxArtifact,
    teacher: TeacherRecord,
    wanted: Collection[Precision],
    data: DataRecord,
    images: HeldOut,
    context: Context,
) -> tuple[dict[Precision, OnnxArtifact], dict[Precision, str]]:
    """Return the teacher's fp32 ``graph`` in the ``wanted`` precisions, and the reasons of those that were not made."""
    made: dict[Precision, OnnxArtifact] = {}
    missing: dict[Precision, str] = {}
    tools = targets.installed_versions(["vitcompress", "onnx", *targets.get("onnx").distributions, *PACKAGES])
    judged_on = [data.digest, images.preprocess, config.images, config.calibration_images]
    each = dict.fromkeys(map(arithmetic_of, config.precisions))
    for precision in (one for one in each if one in wanted and one != "fp32"):
        key = fingerprint(_digests(graph, teacher), precision, judged_on, tools)
        path = context.run.root / "export" / f"{graph.name}.{precision}.onnx"
        one = _kept(OnnxArtifact, path, key, context)
        if one is None:
            found, why = reduce_graph(
                config, (precision,), graph, teacher.model, teacher.weights, data, images, context
            )
            missing |= why
            one = found.get(precision)
            if one is not None:
                keep(_note(path), key, one)
        if one is not None:
            made[precision] = one
    return made, missing


def teacher_engines(
    config: ExportConfig,
    network: Network,
    teacher: TeacherRecord,
    students: Sequence[EngineArtifact],
    context: Context,
) -> tuple[EngineArtifact, ...]:
    """Return the teacher's engine of each flavour and precision that the student has one of, built or with the reason.

    An engine is built anew when a digest, the target's version, a setting of building or the GPU here has changed.
    """
    gpu = gpu_name_and_capability() if gpu_present() else None
    built = [config.opt_batch, config.max_batch, config.compute_capabilities]
    found = []
    for flavour, precision in dict.fromkeys(
        (one.flavour, arithmetic_of(one.precision)) for one in students if one.file
    ):
        target = targets.get(flavour)
        build = partial(build_engine, config, target.name, precision, network, context)
        graph = network.graphs.get(precision)
        if graph is None:
            found.append(build())  # nothing but the reason
            continue
        versions = targets.installed_versions(["vitcompress", *target.distributions])
        here = gpu if target.runs_on == "gpu" else processor()
        key = fingerprint(_digests(graph, teacher), target.name, versions, precision, built, here)
        path = context.run.root / "export" / f"{graph.name}.{target.name}"
        engine = _kept(EngineArtifact, path, key, context)
        if engine is None:
            engine = build()
            if engine.file is not None:
                keep(_note(path), key, engine)
        found.append(engine)
    return tuple(found)


def _digests(graph: OnnxArtifact, teacher: TeacherRecord) -> list[str]:
    return [teacher.weights.sha256, *(one.sha256 for one in graph.files)]


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _kept(kind: type[Kind], path: Path, key: str, context: Context) -> Kind | None:
    """Return the artifact that was made of the same inputs before (``core.kept``), and say so."""
    artifact = kept(kind, _note(path), key, context.run.root)
    if artifact is not None:
        context.say(f"the teacher's {path.name} is there already")
    return artifact
