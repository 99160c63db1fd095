"""What the targets build of the deployed graph: one artifact a target and precision."""

from __future__ import annotations

from collections.abc import Mapping

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
    options = BuildOptions(context.run.root, config.opt_batch, config.max_batch, config.compute_capabilities)
    return tuple(
        _built(target, precision, graphs.get(precision), missing, options, context)
        for target in config.engines
        for precision in config.precisions
    )


def _built(
    name: str,
    precision: Precision,
    graph: OnnxArtifact | None,
    missing: Mapping[Precision, str],
    options: BuildOptions,
    context: Context,
) -> EngineArtifact:
    target = targets.get(name)
    if graph is None:
        reason = f"there is no {precision} graph to build it of: {missing[precision]}"
    elif precision not in target.precisions:
        reason = f"{target.title} does not run {precision}"
    else:
        try:
            made = target.build(graph, options)
        except ResultError as error:
            reason = str(error)
            context.say(f"no {precision} engine: {error}")
        else:
            assert isinstance(made, EngineArtifact)  # noqa: S101 - of a target whose kind is "engine"
            return made
    return EngineArtifact(status="unavailable", flavour=name, precision=precision, reason=reason)
