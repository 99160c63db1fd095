"""An ExecuTorch program on the CPU."""

from __future__ import annotations

import importlib.util
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.onnx import first_line
from vitcompress.exporters.programs import quiet, tensor
from vitcompress.exporters.runners.base import Runner, input_of

BACKEND = "XnnpackBackend"
_DTYPES = {0: "uint8", 6: "float32"}
"""ExecuTorch's numbers of element types (its ``ScalarType``)."""


class ExecutorchRunner(Runner):
    """An ExecuTorch program; it takes batches of 1 to ``max_batch``."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the file, to run on ``threads`` (None: one a physical core).

        Raises:
            EnvironmentLacksError: ExecuTorch, or its XNNPACK backend, is not here.
            BundleError: the file is missing, damaged, or not a classifier of images.
            UsageError: another program is open on another number of threads.
        """
        runtime = import_runtime()
        if not path.is_file():
            raise BundleError(f"{path} does not exist.")
        self.path = path
        with quiet():
            _use_threads(threads or physical_cores())
            try:
                self._program: Any = runtime.load_program(path)
                takes = self._program.metadata("forward").input_tensor_meta(0)
                gives = self._program.metadata("forward").output_tensor_meta(0)
                self._method: Any = self._program.load_method("forward")
            except Exception as error:  # RuntimeError with the number of ExecuTorch's own; KeyError without a method
                raise BundleError(f"{path} is damaged or no ExecuTorch program ({first_line(error)}).") from error
        shape = list(takes.sizes())  # the largest
        self.input, self.size, self.channels = input_of(_DTYPES.get(takes.dtype(), ""), shape, path)
        self.max_batch, self.classes = int(shape[0]), int(gives.sizes()[1])
        _OPEN.add(self)

    def close(self) -> None:
        """Drop the program."""
        self._method = self._program = None
        _OPEN.discard(self)

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        try:
            (logits,) = self._method.execute((tensor(images),))
        except RuntimeError as error:
            raise ResultError(f"ExecuTorch failed on {self.path.name} ({first_line(error)}).") from error
        return np.asarray(logits.numpy(), dtype=np.float32)


_OPEN: weakref.WeakSet[ExecutorchRunner] = weakref.WeakSet()
"""Runners that hold the pool of threads."""


def import_runtime() -> Any:
    """Import ExecuTorch's runtime; an EnvironmentLacksError is raised where it, or XNNPACK, is not here."""
    missing = [name for name in ("executorch", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentLacksError(f"{missing[0]} is not installed; run pip install executorch torch.")
    try:
        with quiet():
            from executorch.runtime import Runtime

            runtime = Runtime.get()
    except (ImportError, OSError) as error:  # built for another torch: symbols are missing
        raise EnvironmentLacksError(
            f"ExecuTorch does not load ({first_line(error)}); run pip install --force-reinstall executorch."
        ) from error
    if not runtime.backend_registry.is_available(BACKEND):
        raise EnvironmentLacksError("this ExecuTorch was built without XNNPACK; run pip install executorch.")
    return runtime


def _use_threads(count: int) -> None:
    """Give ExecuTorch's pool, the only one of a process, ``count`` threads.

    A UsageError is raised where an open program holds a pool of another size: it would go on using freed memory.
    """
    from executorch.extension.pybindings import portable_lib as pool

    now = pool._threadpool_get_thread_count()
    if count == now:
        return
    if _OPEN:
        raise UsageError(
            f"ExecuTorch has one pool of threads a process, and a program that is open uses {now}; close it before "
            f"one is opened with {count}."
        )
    pool._unsafe_reset_threadpool(count)
