"""A TensorRT engine, run and timed on the first GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.exporters.cuda import Gpu, gpu_facts, gpu_present
from vitcompress.exporters.latency import WARMUP_SHARE, Times, no_garbage_collection
from vitcompress.exporters.runners.base import Runner, input_of
from vitcompress.exporters.runners.times import MAX_SAMPLES, MIN_SAMPLES, QUEUED, EngineTimes, warm_up
from vitcompress.exporters.tensorrt.flavours import load_tensorrt
from vitcompress.exporters.tensorrt.log import TensorrtLog


class EngineRunner(Runner):
    """A TensorRT engine on the first GPU; ``infer`` includes the copies to and from it."""

    def __init__(self, path: Path, flavour: str) -> None:
        """Load the engine.

        Raises:
            EnvironmentLacksError: there is no GPU, or TensorRT of this flavour is not installed.
            BundleError: the file is missing, or this GPU and this TensorRT cannot load it.
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
                raise BundleError(
                    f"{path} cannot be loaded by {flavour} {trt.__version__} on this GPU ({self._log.last_error()}); "
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
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        dtypes = {trt.float32: "float32", trt.uint8: "uint8"}
        kinds = [dtypes.get(dtype, str(dtype)) for dtype in map(engine.get_tensor_dtype, (*inputs, *outputs))]
        profile: list[list[int]] = []
        if len(inputs) == len(outputs) == 1:
            profile = [[int(size) for size in shape] for shape in engine.get_tensor_profile_shape(inputs[0], 0)]
        takes = input_of(kinds[0], profile[-1]) if profile else None
        if takes is None or kinds[-1] != "float32":
            shown = ", ".join(f"{name} {kind}" for name, kind in zip((*inputs, *outputs), kinds, strict=True))
            largest = f", images of at most {profile[-1]}" if profile else ""
            raise BundleError(
                f"{self.path} has tensors {shown}{largest}; one input, float32 [batch, 3, size, size] or uint8 "
                "[batch, size, size, 3], and one float32 output are needed."
            )
        self.input, self.size = takes
        self._input, self._output = inputs[0], outputs[0]
        self.min_batch, self.max_batch = profile[0][0], profile[-1][0]
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
        self._prepare(images)
        self._gpu.upload(self._images_at, images)
        self._enqueue()
        self._gpu.download(self._logits_at, logits)
        self._gpu.wait()
        return logits

    def _prepare(self, images: NDArray[Any]) -> None:
        """Set the batch that the next calls run."""
        if self._context is None:
            raise UsageError(f"the runner of {self.path.name} was closed.")
        if not self._context.set_input_shape(self._input, images.shape):
            raise ResultError(f"TensorRT failed on {self.path.name} ({self._log.last_error()}).")

    def _enqueue(self) -> None:
        """Queue one inference of what is in GPU memory; returns before it has run."""
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ResultError(f"TensorRT failed on {self.path.name} ({self._log.last_error()}).")

    def time(self, images: NDArray[Any], seconds: float, clock: Callable[[], float] = time.perf_counter) -> EngineTimes:
        """Time GPU compute of the engine on one batch, by CUDA events.

        First calls with their copies until they have settled (tensorrt-rtx compiles just in time) or a quarter of
        ``seconds`` is spent. Then ``QUEUED`` inferences at a time, queued on the same stream between CUDA events, on
        images that are on the GPU already; the queue hides the host's part unless that takes longer, which
        ``enqueue_ms`` tells. No CUDA graph. (End to end, engines are timed beside the others, in sessions.)

        Args:
            images: one batch ``[B, *image_shape]`` of ``image_dtype``.
            seconds: budget for everything; at least ``MIN_SAMPLES`` are taken.
            clock: seconds, monotonic; replaced in tests.

        Raises:
            UsageError: ``images`` do not fit, or ``seconds`` is not positive.
            ResultError: the runtime or the driver failed.
        """
        self._check(images)
        if not seconds > 0:
            raise UsageError(f"timing {self.path.name} takes more than {seconds} seconds; give a positive number.")
        images = np.ascontiguousarray(images)
        began = clock()

        def end_to_end() -> float:
            start = clock()
            self._infer(images)
            return 1e3 * (clock() - start)

        with no_garbage_collection():
            warm = warm_up(end_to_end, lambda: clock() - began >= WARMUP_SHARE * seconds)
            gpu, enqueue = self._compute(lambda: clock() - began >= seconds, clock)
        return EngineTimes(
            batch=len(images),
            gpu_ms=gpu,
            enqueue_ms=enqueue,
            warm_up=warm,
            gpu=gpu_facts(),
            flavour=self.flavour,
            version=self.version,
        )

    def _compute(self, spent: Callable[[], bool], clock: Callable[[], float]) -> tuple[Times, Times]:
        """Return milliseconds of GPU compute and of queueing it, for each of many inferences."""
        gpu: list[float] = []
        enqueue: list[float] = []
        events = [self._gpu.event() for _ in range(QUEUED + 1)]
        while len(gpu) < MIN_SAMPLES or (not spent() and len(gpu) < MAX_SAMPLES):
            self._gpu.record(events[0])
            for event in events[1:]:
                start = clock()
                self._enqueue()
                enqueue.append(1e3 * (clock() - start))
                self._gpu.record(event)
            self._gpu.wait()
            gpu += [self._gpu.elapsed_ms(first, last) for first, last in pairwise(events)]
        return np.asarray(gpu), np.asarray(enqueue)


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
