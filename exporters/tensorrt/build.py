"""Building an engine: parse, aim, give it a batch range, build, and read back what it became."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import OperatorDtypes, Precision
from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
from vitcompress.exporters.tensorrt.audit import builder_audit, check_engine, engine_audit
from vitcompress.exporters.tensorrt.flavours import RTX_DEFAULT, load_tensorrt
from vitcompress.exporters.tensorrt.log import TensorrtLog, build_failure, logging_to, parse_failure


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
    wanted already: TensorRT computes in the dtypes of the graph, and the engine is held to ``precision``.
    ``compute_capabilities``, such as ``("8.6", "12.0")``, are for tensorrt-rtx; empty for its default.

    A UsageError is raised where a compute capability is not possible, a BundleError where the file is damaged, an
    EnvironmentLacksError where the flavour is not here, and a ResultError where the parser or the builder refuses an
    operator or a batch size, or the engine computes nothing in ``precision``.
    """
    trt = load_tensorrt(flavour)
    started = time.perf_counter()
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
        inspected = builder_audit(log.layers) or _inspect(trt, log, content)
        if inspected is not None:
            check_engine(inspected, precision, onnx_path.name)
    write_atomic(engine_path, content)
    hardware, hardware_source = _hardware(flavour, config)
    tf32 = bool(config.get_flag(trt.BuilderFlag.TF32))
    return EngineFacts(trt.__version__, hardware, hardware_source, seconds, inspected, tf32)


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


def _inspect(trt: Any, log: TensorrtLog, plan: bytes) -> OperatorDtypes | None:
    """Return the engine's own account of its layers; None where it cannot be loaded (no GPU, or another one)."""
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan) if gpu_present() else None
    if engine is None:
        return None
    return engine_audit(str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)))


def _hardware(flavour: str, config: Any) -> tuple[tuple[str, ...], str]:
    """Return what the engine runs on, and how that is known."""
    if flavour == "tensorrt":
        name, capability = gpu_name_and_capability()
        return (f"{name} (compute capability {capability})",), "the GPU it was built on"
    aimed = [int(config.get_compute_capability(index)) for index in range(config.num_compute_capabilities)]
    if not aimed:
        return RTX_DEFAULT, "documented default"
    return tuple(f"{value // 10}.{value % 10}" for value in aimed), "read back from the builder"
