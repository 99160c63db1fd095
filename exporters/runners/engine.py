"""A TensorRT engine, run and timed on the first GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.measured_records import GpuParts, GpuTimes
from vitcompress.exporters.cuda import Gpu, gpu_facts, gpu_present
from vitcompress.exporters.latency import no_garbage_collection
from vitcompress.exporters.latency.card import Watch
from vitcompress.exporters.runners.base import Runner, input_of
from vitcompress.exporters.runners.gpu_times import QUEUED, Bench, Enqueue
from vitcompress.exporters.tensorrt.flavours import load_tensorrt
from vitcompress.exporters.tensorrt.log import TensorrtLog


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
        self.path, self._trt = path, trt
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
            self._allocate(trt)
            self._bind(self._context)
        except BaseException:
            self.close()
            raise

    def _allocate(self, trt: Any) -> None:
        """Read shapes and the batch range from the engine, and give both tensors memory for the largest batch."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        (self._input,) = (name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        (self._output,) = (name for name in names if name != self._input)
        largest = list(engine.get_tensor_profile_shape(self._input, 0)[2])
        dtypes = {trt.float32: "float32", trt.uint8: "uint8"}
        dtype = dtypes.get(engine.get_tensor_dtype(self._input), "")
        self.input, self.size, self.channels = input_of(dtype, largest, self.path)
        self.max_batch = int(largest[0])
        self.classes = int(engine.get_tensor_shape(self._output)[1])
        self._images_at = self._gpu.allocate(self.image_dtype.itemsize * self.max_batch * self.channels * self.size**2)
        self._logits_at = self._gpu.allocate(4 * self.max_batch * self.classes)

    def _bind(self, context: Any) -> None:
        context.set_tensor_address(self._input, self._images_at)
        context.set_tensor_address(self._output, self._logits_at)

    def _set_shape(self, context: Any, shape: tuple[int, ...]) -> None:
        if not context.set_input_shape(self._input, shape):
            raise self._failed()

    def _failed(self) -> ResultError:
        return ResultError(f"TensorRT failed on {self.path.name} ({self._log.last_error()}).")

    def close(self) -> None:
        """Drop the engine, then the GPU memory it used."""
        self._context = self._engine = self._runtime = None
        self._gpu.close()

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        images = np.ascontiguousarray(images)
        self._set_shape(self._context, images.shape)
        self._gpu.upload(self._images_at, images)
        self._enqueue()
        self._gpu.download(self._logits_at, logits)
        self._gpu.wait()
        return logits

    def _enqueue(self) -> None:
        """Queue one inference of what is in GPU memory; returns before it has run."""
        self._execute(self._context)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._gpu.stream):
            raise self._failed()

    def time(self, images: NDArray[Any], seconds: float, clock: Callable[[], float] = time.perf_counter) -> GpuTimes:
        """Time one batch on the GPU, with and without a CUDA graph, and take its energy; ``Bench`` says how.

        ``seconds`` are shared by the three, after a second of rest; each takes a little longer where that is too short.
        (End to end, engines are timed beside the others, in sessions.) Errors are those of ``infer``; where no CUDA
        graph can be made, the record says why.
        """
        self._check(images)
        shape, dtype = images.shape, images.dtype
        with (
            no_garbage_collection(),
            Watch() as watch,
            self._gpu.pinned(shape, dtype) as given,
            self._gpu.pinned((len(images), self.classes), np.dtype(np.float32)) as logits,
        ):
            given[:] = images
            bench = Bench(self._gpu, given, self._images_at, logits, self._logits_at, clock)
            self._infer(images)  # tensorrt-rtx compiles in the first call
            plain = bench.parts(self._enqueue, seconds / 3)
            energy = bench.energy(self._enqueue, watch.card, seconds / 3)
            # The last: nothing else is measured after a capture that failed.
            graph, why = self._parts_in_graph(bench, seconds / 3)
        return GpuTimes(
            plain=plain,
            graph=graph,
            graph_reason=why,
            **energy,
            card=watch.state(),
            method=self._method(),
        )

    def _parts_in_graph(self, bench: Bench, seconds: float) -> tuple[GpuParts | None, str]:
        """Return the parts with the engine in a CUDA graph, or the reason why it cannot be in one."""
        try:
            with self._in_graph(bench.images.shape) as enqueue:
                return bench.parts(enqueue, seconds), ""
        except ResultError as error:
            return None, f"no CUDA graph: {error}"

    @contextmanager
    def _in_graph(self, shape: tuple[int, ...]) -> Iterator[Enqueue]:
        """Lend what queues an inference as one CUDA graph; a ResultError is raised where that cannot be.

        Of tensorrt the stream is captured. tensorrt-rtx captures by itself in a context that is asked to: it knows when
        the kernels for this shape are compiled, and its engines can be captured from outside only where they were built
        for that (TensorRT-RTX documentation, "Working with RTX CUDA Graphs"; release notes of 1.2).
        """
        if not _is_rtx(self._trt):
            with self._gpu.captured(self._enqueue) as launch:
                yield launch
            return
        if not hasattr(self._trt, "CudaGraphStrategy"):
            raise ResultError(f"{self.flavour} {self.version} has none; 1.2 and later have.")
        context = _execution_context(self._trt, self._engine, in_graph=True)
        if context is None:
            raise self._failed()
        self._bind(context)
        self._set_shape(context, shape)
        yield lambda: self._execute(context)

    def _method(self) -> str:
        """Return what a reader must know to compare these figures with others, in words."""
        gpu = gpu_facts()
        graph = "its own capture of the whole graph" if _is_rtx(self._trt) else "a captured stream"
        return (
            f"{gpu.name}, driver {gpu.driver or 'unknown'} (CUDA {gpu.cuda}), {self.flavour} {self.version}; on the "
            f"GPU: CUDA events around each part, pinned memory, one stream, {QUEUED + 1} inferences queued at once; "
            f"CUDA graph: {graph}; energy: of the whole card, inferences with their copies one after the other, no "
            "CUDA graph; end to end: the wall clock, pageable memory, one inference at a time"
        )


def _is_rtx(trt: Any) -> bool:
    return hasattr(trt, "DynamicShapesKernelSpecializationStrategy")  # tensorrt-rtx alone has it


def _execution_context(trt: Any, engine: Any, *, in_graph: bool = False) -> Any:
    """Return a context without CUDA graphs; of tensorrt-rtx one that compiles for a new batch size before it runs it.

    Its default compiles in the background and changes kernels at some later call, in the middle of a measurement.
    ``in_graph`` makes one of tensorrt-rtx that runs in a CUDA graph.
    """
    if not _is_rtx(trt):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    if hasattr(trt, "CudaGraphStrategy"):
        strategies = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if in_graph else strategies.DISABLED
    return engine.create_execution_context(config)
