"""An ONNX file in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.runners.base import Runner, input_of

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Where ONNX Runtime runs, and its own name for it."""
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


def provider_for(device: str) -> Provider:
    """Return where ONNX Runtime runs in a run on ``device``: the GPU when that is ``cuda`` and this build knows GPUs.

    An EnvironmentLacksError is raised where ONNX Runtime is not installed.
    """
    return "cuda" if device == "cuda" and PROVIDERS["cuda"] in import_onnxruntime().get_available_providers() else "cpu"


class OnnxRunner(Runner):
    """An ONNX file in ONNX Runtime."""

    provider: str
    """Execution provider that the session says it runs on, such as ``CPUExecutionProvider``."""

    def __init__(self, path: Path, threads: int | None = None, providers: Provider = "cpu") -> None:
        """Load the file, to run with ``threads`` within one operator (None: one a physical core).

        A BundleError is raised where the file is missing, damaged, or not a classifier of images; an
        EnvironmentLacksError where ONNX Runtime, or its GPU support, is not here.
        """
        self.path = path
        self._session: Any = _session(path, threads, PROVIDERS[providers])
        self.provider = self._session.get_providers()[0]
        images, logits = self._session.get_inputs()[0], self._session.get_outputs()[0]
        dtype = _DTYPES.get(images.type, images.type)
        self.input, self.size, self.channels = input_of(dtype, list(images.shape), path)
        self.classes = logits.shape[1]
        self._input = images.name

    def close(self) -> None:
        """Drop the session."""
        self._session = None

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        try:
            logits = self._session.run(None, {self._input: images})[0]
        except Exception as error:  # ONNX Runtime's errors share no base but this
            raise ResultError(f"ONNX Runtime failed on {self.path.name} ({_sentence(error)}).") from error
        return np.asarray(logits, dtype=np.float32)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime; an EnvironmentLacksError is raised where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentLacksError("ONNX Runtime is not installed; run pip install onnxruntime.") from error
    return onnxruntime


def _session(path: Path, threads: int | None, provider: str) -> Any:
    """Return a session that really has ``provider``, and whose threads sleep between runs."""
    ort = import_onnxruntime()
    lacking = f"ONNX Runtime {ort.__version__} here cannot run on a GPU"
    if provider not in ort.get_available_providers():
        raise EnvironmentLacksError(
            f"{lacking}; install it with pip uninstall onnxruntime; pip install onnxruntime-gpu."
        )
    options = ort.SessionOptions()
    # Spinning threads of one session steal the cores of the next, and make whichever is timed last look fast.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or physical_cores()
    options.log_severity_level = 3
    if not path.is_file():
        raise BundleError(f"{path} does not exist.")
    on_gpu = provider != PROVIDERS["cpu"]
    if on_gpu:
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
    """Return the last part of ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : what happened``, in one line."""
    return " ".join(str(error).split(" : ")[-1].split())[:200].rstrip(".")
