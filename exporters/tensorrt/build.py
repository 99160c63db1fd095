"""Building an engine: parse, aim, give it a batch range, build, and read back what it became."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import EngineTrace, OperatorDtypes, Precision
from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
from vitcompress.exporters.tensorrt.audit import check_engine, layer_dtypes
from vitcompress.exporters.tensorrt.flavours import RTX_DEFAULT, load_tensorrt
from vitcompress.exporters.tensorrt.layers import Layer, layers_from_inspector, layers_from_log
from vitcompress.exporters.tensorrt.log import TensorrtLog, build_failure, logging_to, parse_failure
from vitcompress.exporters.tensorrt.trace import check_trace, trace_engine


@dataclass(frozen=True)
class EngineFacts:
    """What was built; the fields are those of ``EngineArtifact``, which explains them."""

    version: str
    hardware: tuple[str, ...]
    hardware_source: str
    seconds: float
    """Wall time of parsing and building."""
    built_layers: OperatorDtypes | None
    """Layers of the built engine, as the builder logs them, else from its inspector; None where neither tells."""
    tf32: bool
    trace: EngineTrace | None


def engine_from_onnx(
    onnx_path: Path,
    engine_path: Path,
    *,
    flavour: str,
    opt_batch: int,
    max_batch: int,
    compute_capabilities: tuple[str, ...] = (),
    log_path: Path,
    precision: Precision = "fp32",
) -> EngineFacts:
    """Build an engine for batches of 1 to ``max_batch``, fastest at ``opt_batch``.

    ``engine_path`` is either replaced whole or left as it was. The graph takes any batch size and is of the precision
    wanted already: TensorRT computes in the dtypes of the graph. The engine is held to ``precision`` and, product by
    product, to the graph. Every layer with the nodes it was built of is written beside the log (``trace_path``).
    ``compute_capabilities``, such as ``("8.6", "12.0")``, are for tensorrt-rtx; empty for its default.

    A UsageError is raised where a compute capability is not possible, a BundleError where the file is damaged, an
    EnvironmentLacksError where the flavour is not here, and a ResultError where the parser or the builder refuses an
    operator or a batch size, or the engine computes nothing in ``precision`` or otherwise than the graph asks.
    """
    trt = load_tensorrt(flavour)
    started = time.perf_counter()
    trace_path(log_path).unlink(missing_ok=True)  # of the engine before
    with logging_to(trt, log_path) as log:
        builder = trt.Builder(log.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.logger)
        if not parser.parse_from_file(str(onnx_path)):
            raise parse_failure(parser, log, onnx_path)
        config = builder.create_builder_config()
        # So that the engine can be audited here and wherever it runs; DeiT-Tiny's grew by less than 0.1 %.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if compute_capabilities:
            _aim(trt, config, compute_capabilities)
        images = network.get_input(0)
        profile = builder.create_optimization_profile()
        profile.set_shape(images.name, *[(batch, *tuple(images.shape)[1:]) for batch in (1, opt_batch, max_batch)])
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise build_failure(network, log, path=onnx_path, log_path=log_path, flavour=flavour)
        seconds = time.perf_counter() - started
        content = bytes(plan)
        layers = layers_from_log(log.layers) or _inspect(trt, log, content)
    traced = _checked(layers, precision, onnx_path, trace_path(log_path)) if layers is not None else None
    write_atomic(engine_path, content)
    hardware, hardware_source = _hardware(flavour, config)
    tf32 = bool(config.get_flag(trt.BuilderFlag.TF32))
    told = layer_dtypes(layers) if layers is not None else None
    return EngineFacts(trt.__version__, hardware, hardware_source, seconds, told, tf32, traced)


def trace_path(log_path: Path) -> Path:
    """Return where the layers of an engine are written, beside its log."""
    return log_path.with_suffix(".layers.json")


def _checked(layers: tuple[Layer, ...], precision: Precision, onnx_path: Path, path: Path) -> EngineTrace | None:
    """Write the layers with the nodes they come from, and refuse an engine that is not what was asked for."""
    trace = trace_engine(layers, onnx_path)
    if trace is not None:
        write_atomic(path, trace.json())  # first: a refusal refers to it
    check_engine(layer_dtypes(layers), precision, onnx_path.name)
    if trace is None:
        return None
    check_trace(trace, path)
    return trace.record()


def _aim(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    """Tell the builder which GPU generations to build for; a UsageError is raised where it does not know one."""
    members = trt.ComputeCapability.__members__  # such as SM86
    known = {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name[2:].isdigit()}
    unknown = [capability for capability in capabilities if capability not in known]
    if unknown:
        raise UsageError(
            f"compute capability {', '.join(unknown)} is not one tensorrt-rtx {trt.__version__} builds for; "
            f"choose from {', '.join(known)}."
        )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(known[capability], index)


def _inspect(trt: Any, log: TensorrtLog, plan: bytes) -> tuple[Layer, ...] | None:
    """Return the layers that the engine itself tells; None where it cannot be loaded (no GPU, or another one)."""
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan) if gpu_present() else None
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return layers_from_inspector(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))


def _hardware(flavour: str, config: Any) -> tuple[tuple[str, ...], str]:
    """Return what the engine runs on, and how that is known."""
    if flavour == "tensorrt":
        name, capability = gpu_name_and_capability()
        return (f"{name} (compute capability {capability})",), "the GPU it was built on"
    aimed = [int(config.get_compute_capability(index)) for index in range(config.num_compute_capabilities)]
    if not aimed:
        return RTX_DEFAULT, "documented default"
    return tuple(f"{value // 10}.{value % 10}" for value in aimed), "read back from the builder"
