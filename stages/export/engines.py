"""Engines of the deployed graph: one a flavour and precision."""

from __future__ import annotations

from collections.abc import Mapping

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.files import reference
from vitcompress.exporters.tensorrt import Flavour, engine_from_onnx
from vitcompress.stages.export.config import ExportConfig

FP8_CAPABILITIES = ("8.9", "12.0")
"""GPU generations with fp8 products (Ada, Blackwell) among those that tensorrt-rtx builds for."""


def build_engines(
    config: ExportConfig,
    graphs: Mapping[Precision, OnnxArtifact],
    missing: Mapping[Precision, str],
    context: Context,
) -> tuple[EngineArtifact, ...]:
    """One engine for each flavour among the targets and each precision; one that cannot be built has its reason."""
    made = []
    for flavour in config.flavours:
        for precision in config.precisions:
            graph = graphs.get(precision)
            if graph is None:
                reason = f"there is no {precision} graph to build it of: {missing[precision]}"
                made.append(EngineArtifact(status="unavailable", flavour=flavour, precision=precision, reason=reason))
            else:
                made.append(_build(config, flavour, graph, context))
    return tuple(made)


def _build(config: ExportConfig, flavour: Flavour, graph: OnnxArtifact, context: Context) -> EngineArtifact:
    root = context.run.root
    path = root / "export" / f"{graph.name}.{flavour}.engine"
    log = path.with_suffix(".log")
    try:
        facts = engine_from_onnx(
            root / graph.file.path,
            path,
            flavour=flavour,
            precision=graph.precision,
            min_batch=1,
            opt_batch=config.opt_batch,
            max_batch=config.max_batch,
            compute_capabilities=_capabilities(config, flavour, graph.precision),
            log_path=log,
        )
    except ResultError as error:
        context.say(f"no {graph.precision} engine: {error}")
        return EngineArtifact(status="unavailable", flavour=flavour, precision=graph.precision, reason=str(error))
    return EngineArtifact(
        status="built",
        flavour=flavour,
        precision=graph.precision,
        version=facts.version,
        file=reference(path, root),
        log=reference(log, root),
        layers=facts.audit,
        built_layers=facts.engine_audit,
        tf32=facts.tf32,
        hardware=facts.hardware,
        hardware_source=facts.hardware_source,
        min_batch=facts.min_batch,
        opt_batch=facts.opt_batch,
        max_batch=facts.max_batch,
        seconds=facts.seconds,
    )


def _capabilities(config: ExportConfig, flavour: Flavour, precision: Precision) -> tuple[str, ...]:
    """Those asked for; of fp8, where none were, the ones that multiply it."""
    if flavour != "tensorrt-rtx":
        return ()
    return config.compute_capabilities or (FP8_CAPABILITIES if precision == "fp8" else ())
