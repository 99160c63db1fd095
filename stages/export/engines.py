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
