"""Running exported files: one way to ask, whatever runs underneath.

A runner checks its input's dtype, shape and batch before anything runs, because the runtimes' own words for a wrong
one name neither what was given nor what is possible.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from exporters.cuda import Gpu, gpu_present
from exporters.tensorrt import Flavour, TensorrtLog, load_tensorrt

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Where ONNX Runtime runs, and its own name for it."""


class Runner(ABC):
    """A classifier loaded from a file: float32 ``[B, 3, S, S]`` to float32 logits ``[B, K]``. Use it in a ``with``."""

    path: Path
    size: int
    """Side of the square input, pixels."""
    classes: int
    """K, the number of logits."""
    min_batch: int = 1
    max_batch: int | None = None
    """Largest batch that can be run; None when any can."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what the runner holds; again is harmless. It cannot be used afterwards."""

    @abstractmethod
    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of images that are known to fit."""

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits ``[B, K]``, float32, of images ``[B, 3, size, size]``, float32.

        Raises:
            UsageError: dtype, shape or batch size is not one this file takes.
            ResultError: the runtime failed.
        """
        self._check(images)
        logits = self._infer(images)
        if logits.shape != (len(images), self.classes):
            raise ResultError(
                f"{self.path.name} gave logits {logits.shape} where ({len(images)}, {self.classes}) was expected."
            )
        return logits

    def _check(self, images: NDArray[Any]) -> None:
        if images.dtype != np.float32:
            raise UsageError(f"{self.path.name} takes float32 images, {images.dtype} was given.")
        if images.ndim != 4 or images.shape[1:] != (3, self.size, self.size):
            raise UsageError(
                f"{self.path.name} takes images [batch, 3, {self.size}, {self.size}], {list(images.shape)} was given."
            )
        batch = len(images)
        if batch < self.min_batch or (self.max_batch is not None and batch > self.max_batch):
            top = "any size" if self.max_batch is None else str(self.max_batch)
            raise UsageError(f"{self.path.name} takes batches of {self.min_batch} to {top}, {batch} was given.")


def provider_for(device: str) -> Provider:
    """Where ONNX Runtime belongs in a run on ``device``: on the GPU when that is ``cuda`` and this build knows GPUs.

    Raises:
        EnvironmentLacksError: ONNX Runtime is not installed.
    """
    return "cuda" if device == "cuda" and PROVIDERS["cuda"] in _onnxruntime().get_available_providers() else "cpu"


class OnnxRunner(Runner):
    """An ONNX file in ONNX Runtime."""

    provider: str
    """Execution provider that the session says it runs on, such as ``CPUExecutionProvider``."""

    def __init__(self, path: Path, threads: int | None = None, providers: Provider = "cpu") -> None:
        """Load the file.

        Args:
            threads: threads within one operator; None for one a physical core.
            providers: where to run; never silently the CPU when the GPU was asked for.

        Raises:
            BundleError: the file is missing, damaged, or not a classifier of images.
            EnvironmentLacksError: ONNX Runtime, or its GPU support, is not here.
        """
        self.path = path
        self._session: Any = _session(path, threads, PROVIDERS[providers])
        self.provider = self._session.get_providers()[0]
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [list(value.shape) for value in (*inputs, *outputs)]
        right = (
            (len(inputs), len(outputs)) == (1, 1)
            and {inputs[0].type, outputs[0].type} == {"tensor(float)"}
            and [len(shape) for shape in shapes] == [4, 2]
            and shapes[0][1] == 3
            and isinstance(shapes[0][2], int)
            and shapes[0][2] == shapes[0][3]
            and isinstance(shapes[1][1], int)
        )
        if not right:
            raise BundleError(
                f"{path} is no image classifier: its inputs and outputs are {shapes}, "
                "not float32 [batch, 3, size, size] -> [batch, classes]."
            )
        self.size, self.classes = shapes[0][2], shapes[1][1]
        self._input = inputs[0].name
        if isinstance(shapes[0][0], int):  # exported for one batch size only
            self.min_batch = self.max_batch = shapes[0][0]

    def close(self) -> None:
        """Drop the session."""
        self._session = None

    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._session is None:
            raise UsageError(f"the runner of {self.path.name} was closed.")
        try:
            logits = self._session.run(None, {self._input: images})[0]
        except Exception as error:  # ONNX Runtime's errors share no base but this
            raise ResultError(f"ONNX Runtime failed on {self.path.name} ({_sentence(error)}).") from error
        return np.asarray(logits, dtype=np.float32)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentLacksError("ONNX Runtime is not installed; run pip install onnxruntime.") from error
    return onnxruntime


def _session(path: Path, threads: int | None, provider: str) -> Any:
    """A session that really has ``provider``, and whose threads sleep between runs."""
    ort = _onnxruntime()
    lacking = f"ONNX Runtime {ort.__version__} here cannot run on a GPU"
    if provider not in ort.get_available_providers():
        raise EnvironmentLacksError(
            f"{lacking}; install it with pip uninstall onnxruntime; pip install onnxruntime-gpu."
        )
    options = ort.SessionOptions()
    # Spinning threads of one session steal the cores of the next, and make whichever is timed last look fast.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    if not path.is_file():
        raise BundleError(f"{path} does not exist.")
    on_gpu = provider != PROVIDERS["cpu"]
    if on_gpu and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries, when they came as wheels, are on no search path
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime's errors share no base but this
        if on_gpu:  # the same file loads on the CPU, or is reported as damaged there
            raise EnvironmentLacksError(f"{lacking} ({_sentence(error)}); check the GPU's driver.") from error
        raise BundleError(f"{path} is damaged or no ONNX file ({_sentence(error)}).") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU with no more than a log line
        raise EnvironmentLacksError(f"{lacking}: it has {', '.join(session.get_providers())}; check the GPU's driver.")
    session.disable_fallback()  # else a CUDA error in mid-run makes it start again on the CPU
    return session


def _sentence(error: Exception) -> str:
    """The last part of ONNX Runtime's ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : what happened``, in one line."""
    return " ".join(str(error).split(" : ")[-1].split())[:200].rstrip(".")


class EngineRunner(Runner):
    """A TensorRT engine on the first GPU; ``infer`` includes the copies to and from it."""

    def __init__(self, path: Path, flavour: Flavour) -> None:
        """Load the engine.

        Raises:
            EnvironmentLacksError: there is no GPU, or TensorRT of this flavour is not installed.
            BundleError: the file is missing, or this GPU and this TensorRT cannot load it.
        """
        if not gpu_present():
            raise EnvironmentLacksError(f"running {path.name} needs an NVIDIA GPU, and none was found on this machine.")
        trt = load_tensorrt(flavour)
        if not path.is_file():
            raise BundleError(f"{path} does not exist.")
        self.path = path
        self._log = TensorrtLog(trt)
        self._gpu = Gpu()  # before TensorRT, so that both are in the same context
        try:
            self._runtime: Any = trt.Runtime(self._log.logger)
            self._engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                raise BundleError(
                    f"{path} cannot be loaded by {flavour} {trt.__version__} on this GPU ({self._log.last_error()}); "
                    "build the engine for this GPU and this version."
                )
            self._context: Any = self._engine.create_execution_context()
            self._bind(trt)
        except BaseException:
            self.close()
            raise

    def _bind(self, trt: Any) -> None:
        """Read shapes and the batch range from the engine, and give both tensors memory for the largest batch."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        dtypes = {engine.get_tensor_dtype(name) for name in names}
        if (len(inputs), len(outputs)) != (1, 1) or dtypes != {trt.float32}:
            raise BundleError(f"{self.path} has tensors {names} of {dtypes}; one float32 input and output are needed.")
        self._input, self._output = inputs[0], outputs[0]
        smallest, _, largest = engine.get_tensor_profile_shape(self._input, 0)
        self.min_batch, self.max_batch, self.size = int(smallest[0]), int(largest[0]), int(largest[2])
        self.classes = int(engine.get_tensor_shape(self._output)[1])
        self._images_at = self._gpu.allocate(4 * self.max_batch * 3 * self.size**2)
        self._logits_at = self._gpu.allocate(4 * self.max_batch * self.classes)
        self._context.set_tensor_address(self._input, self._images_at)
        self._context.set_tensor_address(self._output, self._logits_at)

    def close(self) -> None:
        """Drop the engine, then the GPU memory it used."""
        self._context = self._engine = self._runtime = None
        self._gpu.close()

    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._context is None:
            raise UsageError(f"the runner of {self.path.name} was closed.")
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        images = np.ascontiguousarray(images)
        self._gpu.upload(self._images_at, images)
        ready = self._context.set_input_shape(self._input, images.shape)
        if not ready or not self._context.execute_async_v3(self._gpu.stream):
            raise ResultError(f"TensorRT failed on {self.path.name} ({self._log.last_error()}).")
        self._gpu.download(self._logits_at, logits)
        self._gpu.wait()
        return logits
