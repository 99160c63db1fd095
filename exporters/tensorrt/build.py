"""Building an engine: parse, audit, aim, give it a batch range, build, and read back what it became."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitcompress.core.artifact_records import OperatorDtypes, Precision
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.core.files import write_atomic
from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
from vitcompress.exporters.tensorrt.audit import builder_audit, check_engine, engine_audit, information_of
from vitcompress.exporters.tensorrt.failures import build_failure, parse_failure
from vitcompress.exporters.tensorrt.flavours import MODULES, RTX_DEFAULT, capability_names, load_tensorrt
from vitcompress.exporters.tensorrt.log import TensorrtLog, logging_to

HardwareSource = Literal["read back from the builder", "documented default", "the GPU it was built on"]
Tensor = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of a network's input or output; -1 is the dynamic batch."""


@dataclass(frozen=True)
class EngineFacts:
    """What was built, read back from the builder's own objects rather than from the arguments (but see hardware)."""

    flavour: str
    version: str
    hardware: tuple[str, ...]
    """What it runs on: compute capabilities (``"8.6"``) for tensorrt-rtx, the building GPU for tensorrt."""
    hardware_source: HardwareSource
    """How ``hardware`` is known; the documented default is the one thing here that nothing read back."""
    seconds: float
    """Wall time of parsing and building."""
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    min_batch: int
    opt_batch: int
    max_batch: int
    precision: Precision
    """What was asked for, and found in the engine where TensorRT tells."""
    engine_audit: OperatorDtypes | None
    """Layers of the built engine, as the builder logs them, else from its inspector; None where neither tells."""
    tf32: bool
    """Whether float32 products may round their operands to TF32's 10 bits of mantissa, TensorRT's default."""


def engine_from_onnx(
    onnx_path: Path,
    engine_path: Path,
    *,
    flavour: str,
    min_batch: int,
    opt_batch: int,
    max_batch: int,
    compute_capabilities: tuple[str, ...] = (),
    log_path: Path,
    precision: Precision = "fp32",
) -> EngineFacts:
    """Build an engine for batches of ``min_batch`` to ``max_batch``, fastest at ``opt_batch``.

    ``engine_path`` is either replaced whole or left as it was.

    Args:
        onnx_path: classifier of float32 ``[batch, 3, S, S]`` or uint8 ``[batch, S, S, 3]`` to float32 ``[batch, K]``,
            already of the precision wanted: TensorRT computes in the dtypes of the graph.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        compute_capabilities: such as ``("8.6", "12.0")``, for tensorrt-rtx; empty for its default.
        log_path: where the builder's messages go.
        precision: what the engine is held to.

    Raises:
        UsageError: the file is missing; the batch range or a compute capability is not possible, for this graph or at
            all.
        BundleError: the file is damaged.
        EnvironmentLacksError: the flavour, or the GPU that ``tensorrt`` builds on, is not here.
        ResultError: the graph has other than one input and one output, or an operator that the parser or the builder
            refuses, or the engine computes nothing in ``precision``.
    """
    batches = (min_batch, opt_batch, max_batch)
    _refuse_impossible(flavour, batches, compute_capabilities)
    if not onnx_path.is_file():
        raise UsageError(f"{onnx_path} does not exist; give the ONNX file to build an engine of.")
    trt = load_tensorrt(flavour)
    started = time.perf_counter()
    with logging_to(trt, log_path) as log:
        builder = trt.Builder(log.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.logger)
        if not parser.parse_from_file(str(onnx_path)):
            raise parse_failure(parser, log, onnx_path)
        inputs, outputs = _tensors(network, onnx_path)
        config = builder.create_builder_config()
        # So that the engine can be audited here and wherever it runs; DeiT-Tiny's grew by less than 0.1 %.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if compute_capabilities:
            _aim(trt, config, compute_capabilities)
        profile = _add_profile(builder, config, inputs[0], batches, onnx_path)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise build_failure(
                network,
                log,
                path=onnx_path,
                log_path=log_path,
                flavour=flavour,
                batches=batches,
                capabilities=compute_capabilities,
            )
        seconds = time.perf_counter() - started
        content = bytes(plan)
        inspected = builder_audit(log.layers) or _inspect(trt, log, content)
        if inspected is not None:
            check_engine(inspected, precision, onnx_path.name)
    write_atomic(engine_path, content)
    hardware, hardware_source = _hardware(flavour, config)
    return EngineFacts(
        flavour=flavour,
        version=trt.__version__,
        hardware=hardware,
        hardware_source=hardware_source,
        seconds=seconds,
        bytes=len(content),
        inputs=inputs,
        outputs=outputs,
        min_batch=profile[0],
        opt_batch=profile[1],
        max_batch=profile[2],
        precision=precision,
        engine_audit=inspected,
        tf32=bool(config.get_flag(trt.BuilderFlag.TF32)),
    )


def _refuse_impossible(flavour: str, batches: tuple[int, int, int], capabilities: tuple[str, ...]) -> None:
    low, best, high = batches
    if not 1 <= low <= best <= high:
        raise UsageError(f"batch sizes min {low}, opt {best}, max {high} must be 1 or more, in order.")
    if flavour not in MODULES:
        raise UsageError(f"engine '{flavour}' is not known; choose tensorrt or tensorrt-rtx.")
    if flavour == "tensorrt" and capabilities:
        raise UsageError("tensorrt builds for the GPU it runs on; compute capabilities are for tensorrt-rtx only.")
    if flavour == "tensorrt" and not gpu_present():
        raise EnvironmentLacksError("tensorrt needs an NVIDIA GPU to build an engine, and none was found.")


def _tensors(network: Any, path: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs of a parsed network.

    Raises:
        BundleError: the file held no graph (an empty file parses).
        ResultError: the network takes or gives more than one tensor.
    """
    inputs = tuple(_describe(network.get_input(index)) for index in range(network.num_inputs))
    outputs = tuple(_describe(network.get_output(index)) for index in range(network.num_outputs))
    if not (inputs or outputs or network.num_layers):
        raise BundleError(f"TensorRT cannot take {path.name}: it is damaged or no ONNX file; export it again.")
    if (len(inputs), len(outputs)) != (1, 1):
        shown = "; ".join(f"{name} {dtype} {list(shape)}" for name, dtype, shape in (*inputs, *outputs))
        raise ResultError(f"{path.name} has {shown}; an engine needs one input, the images, and one output.")
    return inputs, outputs


def _aim(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    known = capability_names(trt)
    unknown = [capability for capability in capabilities if capability not in known]
    if unknown:
        raise UsageError(
            f"compute capability {', '.join(unknown)} is not one tensorrt-rtx {trt.__version__} builds for; "
            f"choose from {', '.join(known)}."
        )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(known[capability], index)


def _add_profile(
    builder: Any, config: Any, images: Tensor, batches: tuple[int, int, int], path: Path
) -> tuple[int, int, int]:
    """Give ``config`` a profile with the batch range; the profile's min, opt and max batch as it holds them."""
    name, _, (fixed, *image) = images
    low, best, high = batches
    if fixed != -1 and {fixed} != set(batches):
        raise UsageError(
            f"{path.name} takes batches of {fixed} only, min {low}, opt {best}, max {high} was given; "
            f"ask for {fixed} alone, or export it with a dynamic batch."
        )
    profile = builder.create_optimization_profile()
    try:
        profile.set_shape(name, *[(batch, *image) for batch in batches])
        accepted = config.add_optimization_profile(profile) != -1
    except (RuntimeError, TypeError):  # beyond what its integers hold
        accepted = False
    if not accepted:
        raise UsageError(
            f"TensorRT refused batch sizes min {low}, opt {best}, max {high} for {path.name}; ask for less."
        )
    smallest, usual, largest = (int(shape[0]) for shape in profile.get_shape(name))
    return smallest, usual, largest


def _inspect(trt: Any, log: TensorrtLog, plan: bytes) -> OperatorDtypes | None:
    """Return the engine's own account of its layers; None where it cannot be loaded (no GPU, or another one)."""
    if not gpu_present():
        return None
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        return None
    return engine_audit(information_of(trt, engine))


def _describe(tensor: Any) -> Tensor:
    dtype = tensor.dtype.name.lower()
    return (
        tensor.name,
        {"float": "float32", "half": "float16"}.get(dtype, dtype),
        tuple(int(size) for size in tensor.shape),
    )


def _hardware(flavour: str, config: Any) -> tuple[tuple[str, ...], HardwareSource]:
    if flavour == "tensorrt":
        name, capability = gpu_name_and_capability()
        return (f"{name} (compute capability {capability})",), "the GPU it was built on"
    aimed = [int(config.get_compute_capability(index)) for index in range(config.num_compute_capabilities)]
    if not aimed:
        return RTX_DEFAULT, "documented default"
    return tuple(f"{value // 10}.{value % 10}" for value in aimed), "read back from the builder"
