"""A LiteRT file, ``.tflite``, on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.runners.base import Runner, input_of

INSTALL = "pip install 'vitcompress[litert]'"


class LitertRunner(Runner):
    """A file for one image at a time, in LiteRT's interpreter with XNNPACK's kernels.

    A batch is run image by image. XNNPACK's threads sleep after each image (``XNN_FLAG_YIELD_WORKERS``, in LiteRT's
    ``xnnpack_delegate.cc``).
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the file, to run with ``threads`` (None: one a physical core).

        A BundleError is raised where the file is missing, damaged, or not a classifier of images; an
        EnvironmentLacksError where LiteRT is not installed.
        """
        self.path, library = path, import_interpreter()
        if not path.is_file():
            raise BundleError(f"{path} does not exist.")
        try:
            self._interpreter: Any = library.Interpreter(str(path), num_threads=threads or physical_cores())
            self._interpreter.allocate_tensors()
            (images,), (logits,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:  # the latter of operators that this version does not know
            raise BundleError(f"{path} is damaged or no LiteRT classifier ({_sentence(error)}).") from error
        dtype = np.dtype(images["dtype"]).name
        self.input, self.size, self.channels = input_of(dtype, [int(one) for one in images["shape"]], path)
        self.classes = int(logits["shape"][-1])
        self._images, self._logits = images["index"], logits["index"]

    def close(self) -> None:
        """Drop the interpreter."""
        self._interpreter = None

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        found = np.empty((len(images), self.classes), dtype=np.float32)
        try:
            for row in range(len(images)):
                self._interpreter.set_tensor(self._images, images[row : row + 1])
                self._interpreter.invoke()
                found[row] = self._interpreter.get_tensor(self._logits)[0]
        except (ValueError, RuntimeError) as error:
            raise ResultError(f"LiteRT failed on {self.path.name} ({_sentence(error)}).") from error
        return found


def import_interpreter() -> Any:
    """Import LiteRT's interpreter; an EnvironmentLacksError is raised where it is not installed."""
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise EnvironmentLacksError(f"LiteRT is not installed; run {INSTALL}.") from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
