"""A TensorRT engine, run and timed on the first GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.cuda import Gpu, gpu_facts, gpu_present
from vitcompress.exporters.latency import WARMUP_SHARE, Times, no_garbage_collection
from vitcompress.exporters.runners.base import Runner, input_of
from vitcompress.exporters.tensorrt.flavours import load_tensorrt
from vitcompress.exporters.tensorrt.log import TensorrtLog

QUEUED = 16
"""Inferences queued at once, so that the GPU does not wait for the host between them."""
MIN_SAMPLES, MAX_SAMPLES = 32, 20_000
"""Samples that are taken even when the time is spent, and beyond which more would sharpen nothing."""


@dataclass(frozen=True)
class EngineTimes:
    """GPU compute of one engine at one batch size."""

    gpu_ms: Times
    """Milliseconds an inference of the whole batch, float64 ``[samples]``, without transfers."""
    how: str
    """How it was measured, and on what, in words."""


class EngineRunner(Runner):
    """A TensorRT engine on the first GPU; ``infer`` includes the copies to and from it."""

    def __init__(self, path: Path, flavour: str) -> None:
        """Load the engine.

        An EnvironmentLacksError is raised without a GPU, a driver that is new enough or this flavour of TensorRT, a
        BundleError where the file is missing or cannot be loaded by them.
        """
        if not gpu_present():
            raise EnvironmentLacksError("running an engine needs an NVIDIA GPU, and none was found on this machine.")
        trt = load_tensorrt(flavour)
        if not path.is_file():
            raise BundleError(f"{path} does not exist.")
        self.path = path
        self._log = TensorrtLog(trt)
        self.flavour, self.version = flavour, str(trt.__version__)
        self._gpu = Gpu()  # before TensorRT, so that both are in the same context
        try:
            with no_garbage_collection():  # see logging_to
                self._runtime: Any = trt.Runtime(self._log.logger)
                self._engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                said = self._log.last_error()
                if "driver version is insufficient" in said:
                    raise EnvironmentLacksError(
                        f"{flavour} {trt.__version__} needs a newer NVIDIA driver than this machine's ({said}); "
                        "update the driver."
                    )
                raise BundleError(
                    f"{path} cannot be loaded by {flavour} {trt.__version__} on this GPU ({said}); "
                    "build the engine for this GPU and this version."
                )
            self._context: Any = _execution_context(trt, self._engine)
            self._bind(trt)
        except BaseException:
            self.close()
            raise

    def _bind(self, trt: Any) -> None:
        """Read shapes and the batch range from the engine, and give both tensors memory for the largest batch."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        (self._input,) = (name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        (self._output,) = (name for name in names if name != self._input)
        largest = list(engine.get_tensor_profile_shape(self._input, 0)[2])
        dtypes = {trt.float32: "float32", trt.uint8: "uint8"}
        self.input, self.size = input_of(dtypes.get(engine.get_tensor_dtype(self._input), ""), largest, self.path)
        self.max_batch = int(largest[0])
        self.classes = int(engine.get_tensor_shape(self._output)[1])
        self._images_at = self._gpu.allocate(self.image_dtype.itemsize * self.max_batch * 3 * self.size**2)
        self._logits_at = self._gpu.allocate(4 * self.max_batch * self.classes)
        self._context.set_tensor_address(self._input, self._images_at)
        self._context.set_tensor_address(self._output, self._logits_at)

    def close(self) -> None:
        """Drop the engine, then the GPU memory it used."""
        self._context = self._engine = self._runtime = None
        self._gpu.close()

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        images = np.ascontiguousarray(images)
        if not self._context.set_input_shape(self._input, images.shape):
            raise ResultError(f"TensorRT failed on {self.path.name} ({self._log.last_error()}).")
        self._gpu.upload(self._images_at, images)
        self._enqueue()
        self._gpu.download(self._logits_at, logits)
        self._gpu.wait()
        return logits

    def _enqueue(self) -> None:
        """Queue one inference of what is in GPU memory; returns before it has run."""
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ResultError(f"TensorRT failed on {self.path.name} ({self._log.last_error()}).")

    def time(self, images: NDArray[Any], seconds: float, clock: Callable[[], float] = time.perf_counter) -> EngineTimes:
        """Time GPU compute of the engine on one batch, by CUDA events.

        First calls with their copies, for a quarter of ``seconds`` (tensorrt-rtx compiles just in time). Then
        ``QUEUED`` inferences at a time, queued on the same stream between CUDA events, on images that are on the GPU
        already; the queue hides the host's part unless that takes longer, which the record tells. No CUDA graph. (End
        to end, engines are timed beside the others, in sessions.)

        ``seconds`` are for everything; at least ``MIN_SAMPLES`` are taken. Errors are those of ``infer``.
        """
        self._check(images)
        images = np.ascontiguousarray(images)
        began = clock()
        milliseconds: list[float] = []
        queueing = 0.0
        with no_garbage_collection():
            self._infer(images)
            first = clock() - began
            while clock() - began < WARMUP_SHARE * seconds:
                self._infer(images)
            events = [self._gpu.event() for _ in range(QUEUED + 1)]
            while len(milliseconds) < MIN_SAMPLES or (clock() - began < seconds and len(milliseconds) < MAX_SAMPLES):
                self._gpu.record(events[0])
                start = clock()
                for event in events[1:]:
                    self._enqueue()
                    self._gpu.record(event)
                queueing += clock() - start
                self._gpu.wait()
                milliseconds += [self._gpu.elapsed_ms(one, other) for one, other in pairwise(events)]
        return EngineTimes(np.asarray(milliseconds), self._method(first, 1e3 * queueing > 0.9 * sum(milliseconds)))

    def _method(self, first: float, host_bound: bool) -> str:
        """Return what a reader must know to compare these figures with others, in words."""
        gpu = gpu_facts()
        clock = f"SM clock {gpu.sm_clock_mhz} MHz" if gpu.sm_clock_mhz else "SM clock unknown"
        waits = "; the host queues more slowly than the GPU computes" if host_bound else ""
        return (
            f"{gpu.name}, driver {gpu.driver or 'unknown'} (CUDA {gpu.cuda}), {clock} afterwards, {self.flavour} "
            f"{self.version}; GPU compute by CUDA events without transfers, {QUEUED} inferences queued at once; end to "
            "end by the wall clock with transfers from pageable memory, one at a time; no CUDA graph; first call "
            f"{1e3 * first:.1f} ms{waits}"
        )


def _execution_context(trt: Any, engine: Any) -> Any:
    """Return a context without CUDA graphs; of tensorrt-rtx one that compiles for a new batch size before it runs it.

    Its default compiles in the background and changes kernels at some later call, in the middle of a measurement.
    """
    strategy = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)  # tensorrt-rtx alone has it
    if strategy is None:
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
    if hasattr(trt, "CudaGraphStrategy"):
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
    return engine.create_execution_context(config)
