"""What targets other than ONNX Runtime build of the graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.exporters import targets
from vitcompress.exporters.targets import BuildOptions
from vitcompress.stages.export.config import ExportConfig


def build_engines(
    config: ExportConfig,
    graphs: Mapping[Precision, OnnxArtifact],
    missing: Mapping[Precision, str],
    context: Context,
) -> tuple[EngineArtifact, ...]:
    """Build one artifact for each target and each precision; one that cannot be built has its reason."""
    return tuple(
        build_engine(config, name, precision, graphs, missing, context)
        for name in config.engines
        for precision in config.engine_precisions
    )


def build_engine(
    config: ExportConfig,
    name: str,
    precision: Precision,
    graphs: Mapping[Precision, OnnxArtifact],
    missing: Mapping[Precision, str],
    context: Context,
    of: Literal["student", "teacher"] = "student",
) -> EngineArtifact:
    """Build what the target ``name`` runs of the graph in a precision; of one that cannot be built, the reason."""
    target = targets.get(name)
    options = BuildOptions(context.run.root, config.opt_batch, config.max_batch, config.compute_capabilities)
    try:
        if precision not in graphs:
            why = missing.get(precision, "export.precision does not have it")
            raise ResultError(f"there is no {precision} graph to build it of: {why}")
        if precision not in target.precisions:
            raise ResultError(f"{target.title} does not run {precision}")
        made = target.build(graphs[precision], options)
        assert isinstance(made, EngineArtifact)  # noqa: S101 - of a target whose kind is "engine"
    except ResultError as error:
        context.say(f"no {precision} engine of the {of}: {error}")
        made = EngineArtifact(status="unavailable", flavour=name, precision=precision, reason=str(error))
    return made
