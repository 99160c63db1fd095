"""An ONNX file as a TensorRT engine: one path for ``tensorrt`` 10 and 11 and for ``tensorrt_rtx``.

The two differ in what they need and what they promise. ``tensorrt`` builds on a GPU, for that GPU. ``tensorrt_rtx``
builds anywhere, for a list of compute capabilities, and compiles the rest on the GPU it first runs on. Only calls
that every version has are used; precision comes from the ONNX file alone (a strongly typed network), since the
builder's precision flags are gone from version 11 and could be silently ignored before.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from core.errors import EnvironmentLacksError, ResultError, UsageError
from core.files import write_atomic
from exporters.cuda import gpu_name_and_capability, gpu_present

Flavour = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour, spelled as its distribution on PyPI, to the module it installs."""
RTX_DEFAULT = ("8.0", "8.6", "8.9", "12.0")
"""What ``tensorrt_rtx`` builds for when told nothing: Ampere and later, by its documentation. It cannot be asked."""
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


def installed_flavours() -> dict[str, str]:
    """The flavours that can be imported, with their versions, found without importing them."""
    found = {}
    for flavour, module in MODULES.items():
        # Metadata alone is not enough (a failed or partial install leaves it), nor is a module of unknown version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(flavour)
            if importlib.util.find_spec(module) is not None:
                found[flavour] = version
    return found


def choose_flavour(wanted: Literal["auto", "tensorrt", "tensorrt-rtx", "none"]) -> tuple[str, str]:
    """The flavour to build with (or ``none``), and why, in words.

    Raises:
        UsageError: ``wanted`` is none of the four.
        EnvironmentLacksError: a flavour asked for by name cannot build here.
    """
    if wanted not in ("auto", "none", *MODULES):
        raise UsageError(f"engine '{wanted}' is not known; choose auto, tensorrt, tensorrt-rtx or none.")
    if wanted == "none":
        return "none", "no engine was asked for"
    installed = installed_flavours()
    if wanted in MODULES:
        if wanted not in installed:
            raise EnvironmentLacksError(f"{wanted} is not installed; run pip install {wanted}.")
        if wanted == "tensorrt" and not gpu_present():
            raise EnvironmentLacksError(
                "tensorrt needs an NVIDIA GPU to build an engine and none was found; build where there is one, "
                "or use tensorrt-rtx, which builds without."
            )
        return wanted, f"{wanted} {installed[wanted]} was asked for"
    if "tensorrt" in installed and gpu_present():
        return "tensorrt", f"tensorrt {installed['tensorrt']} is installed and a GPU is here to build on"
    if "tensorrt-rtx" in installed:
        return "tensorrt-rtx", f"tensorrt-rtx {installed['tensorrt-rtx']} is installed and builds without a GPU"
    first = "tensorrt is installed but needs a GPU to build" if "tensorrt" in installed else "TensorRT is not installed"
    return "none", (
        f"{first}: run pip install tensorrt-rtx (builds anywhere) "
        "or, on a machine with an NVIDIA GPU, pip install tensorrt"
    )


def load_tensorrt(flavour: str) -> Any:
    """The module of a flavour.

    Raises:
        EnvironmentLacksError: it is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(MODULES[flavour])
    except (ImportError, OSError) as error:
        raise EnvironmentLacksError(f"{flavour} cannot be loaded ({error}); run pip install {flavour}.") from error


class TensorrtLog:
    """TensorRT's messages: errors remembered, and everything worth keeping written to ``file``."""

    def __init__(self, trt: Any, file: IO[str] | None = None) -> None:
        self._errors: list[str] = []
        outer = self

        class Logger(trt.ILogger):  # type: ignore[misc]  # the base is known only once a flavour is chosen
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # required: pybind11 does not accept super().__init__() alone

            def log(self, severity: Any, message: str) -> None:
                outer._write(severity.name, message, file)

        self.logger = Logger()

    def _write(self, severity: str, message: str, file: IO[str] | None) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self._errors.append(message)
        # VERBOSE has thousands of lines a build, of which one says what the engine's layers and dtypes became.
        if file is not None and (severity != "VERBOSE" or message.startswith("Engine Layer Information")):
            # TensorRT calls this from C++, also after the build is over: an exception here would end the process.
            with contextlib.suppress(OSError, ValueError):
                file.write(f"[{severity}] {message}\n")

    def last_error(self) -> str:
        """The last error in one line; ``no error was logged`` when there was none."""
        return " ".join(self._errors[-1].split())[:300] if self._errors else "no error was logged"


@contextlib.contextmanager
def _logging_to(trt: Any, path: Path) -> Iterator[TensorrtLog]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1, encoding="utf-8") as file:  # by line: a crash in C++ keeps what was said before
        yield TensorrtLog(trt, file)


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
) -> EngineFacts:
    """Build an engine for batches of ``min_batch`` to ``max_batch``, fastest at ``opt_batch``.

    Args:
        onnx_path: graph of one input ``[batch, ...]`` whose other dimensions are fixed.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        compute_capabilities: such as ``("8.6", "12.0")``, for tensorrt-rtx; empty for its default.
        log_path: where the builder's messages go.

    Raises:
        UsageError: the batch range or a compute capability is not possible.
        EnvironmentLacksError: the flavour, or the GPU that ``tensorrt`` builds on, is not here.
        ResultError: the graph has an operator the parser refuses, or the builder made no engine.
    """
    _refuse_impossible(flavour, (min_batch, opt_batch, max_batch), compute_capabilities)
    trt = load_tensorrt(flavour)
    started = time.perf_counter()
    with _logging_to(trt, log_path) as log:
        builder = trt.Builder(log.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        _parse(trt, network, log, onnx_path)
        config = builder.create_builder_config()
        if compute_capabilities:
            _aim(trt, config, compute_capabilities)
        profile = _add_profile(builder, config, network, (min_batch, opt_batch, max_batch))
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ResultError(f"{flavour} built no engine of {onnx_path.name} ({log.last_error()}); see {log_path}.")
        content = bytes(plan)
    write_atomic(engine_path, content)
    batches = [int(shape[0]) for shape in profile]
    hardware, hardware_source = _hardware(flavour, config)
    return EngineFacts(
        flavour=flavour,
        version=trt.__version__,
        hardware=hardware,
        hardware_source=hardware_source,
        seconds=time.perf_counter() - started,
        bytes=len(content),
        inputs=tuple(_describe(network.get_input(index)) for index in range(network.num_inputs)),
        outputs=tuple(_describe(network.get_output(index)) for index in range(network.num_outputs)),
        min_batch=batches[0],
        opt_batch=batches[1],
        max_batch=batches[2],
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


def _parse(trt: Any, network: Any, log: TensorrtLog, path: Path) -> None:
    parser = trt.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(path)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        raise ResultError(f"{path.name} cannot be parsed ({log.last_error()}).")
    error = errors[0]
    # A bare operator without an importer is described by the failed condition alone, "false".
    reason = " ".join(error.desc().split())[:300] if len(error.desc()) > 5 else "operator not supported"
    where = f" at node '{error.node_name()}' [{error.node_operator()}]" if error.node_name() else ""
    more = f"; {len(errors) - 1} more" if len(errors) > 1 else ""
    raise ResultError(f"TensorRT cannot take {path.name}{where}: {reason} ({error.code().name}{more}).")


def capability_names(trt: Any) -> dict[str, Any]:
    """Compute capabilities that a flavour can be told to build for, as ``"8.6"``, to its own constants."""
    members = trt.ComputeCapability.__members__
    return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name[2:].isdigit()}


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


def _add_profile(builder: Any, config: Any, network: Any, batches: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Give ``config`` a profile with the batch range; the profile's min, opt and max shapes as it holds them."""
    shape = tuple(network.get_input(0).shape) if network.num_inputs == 1 else ()
    if not shape or shape[0] != -1 or min(shape[1:]) < 1:
        raise ResultError(f"the graph needs one input whose first dimension alone is dynamic; it has {shape}.")
    name = network.get_input(0).name
    profile = builder.create_optimization_profile()
    profile.set_shape(name, *[(batch, *shape[1:]) for batch in batches])
    if config.add_optimization_profile(profile) != 0:
        raise ResultError(f"TensorRT refused the batch range {batches} for input '{name}'.")
    return [tuple(held) for held in profile.get_shape(name)]


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
