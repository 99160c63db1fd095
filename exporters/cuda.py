"""The few CUDA driver calls that running an engine needs, through ctypes: no torch, no CUDA toolkit, only the driver.

The driver library is wherever a driver is; the runtime library is in one of several wheels. TensorRT uses the
device's primary context, and so does this.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.exporters.nvml import Card

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: calls of other threads do not end a capture
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@cache
def _driver() -> Any:
    """Return the driver library, initialised; None when there is none or it finds no device."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    # A library without a working driver (a container without --gpus, a stub) fails in cuInit.
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return None
    return library


def gpu_present() -> bool:
    """Return whether an NVIDIA driver is here, starts, and sees at least one GPU."""
    return _driver() is not None


def _call(name: str, *arguments: Any) -> None:
    """Call the driver; an EnvironmentLacksError is raised without a GPU, a ResultError where the call fails."""
    library = _driver()
    if library is None:
        raise EnvironmentLacksError("this needs an NVIDIA GPU with its driver, and none was found on this machine.")
    status = getattr(library, name)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown error"
        raise ResultError(f"CUDA call {name} failed: {reason} (error {status}).")


@dataclass(frozen=True)
class GpuFacts:
    """What a time measured on a GPU depends on."""

    name: str
    """Such as ``NVIDIA A10``."""
    capability: str
    """Compute capability, such as ``8.6``."""
    cuda: str
    """The newest CUDA version that the driver runs, such as ``13.0``."""
    driver: str | None
    """The driver's own version, such as ``580.65.06``; None when NVML, which tells it, is not here."""


def pci_address() -> bytes:
    """Return the first GPU's PCI address, by which NVML knows it too; an EnvironmentLacksError is raised without it."""
    device, address = ctypes.c_int(0), ctypes.create_string_buffer(32)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    _call("cuDeviceGetPCIBusId", address, 32, device)
    return address.value


def gpu_facts() -> GpuFacts:
    """Return the first GPU and its driver now; an EnvironmentLacksError is raised where there is none."""
    device, number = ctypes.c_int(0), ctypes.c_int(0)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, 256, device)
    digits = []
    for attribute in (_MAJOR, _MINOR):
        _call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        digits.append(str(number.value))
    _call("cuDriverGetVersion", ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    with Card(pci_address()) as card:
        driver = card.driver()
    return GpuFacts(name.value.decode(errors="replace"), ".".join(digits), cuda, driver)


def gpu_name_and_capability() -> tuple[str, str]:
    """Return name and compute capability of the first GPU, such as ``("NVIDIA A10", "8.6")``."""
    facts = gpu_facts()
    return facts.name, facts.capability


class Gpu:
    """The first GPU's primary context, a stream and some memory; all given back at the end of the ``with`` block."""

    def __init__(self) -> None:
        self._device = ctypes.c_int(0)
        self._buffers: list[ctypes.c_uint64] = []
        self._stream = ctypes.c_void_p()
        context = ctypes.c_void_p()
        _call("cuDeviceGet", ctypes.byref(self._device), 0)
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        _call("cuCtxSetCurrent", context)
        _call("cuStreamCreate", ctypes.byref(self._stream), 1)  # 1: does not wait for the default stream

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stream(self) -> int:
        """Handle of the stream, for TensorRT."""
        return self._stream.value or 0

    def allocate(self, size: int) -> int:
        """Return address of ``size`` new bytes of GPU memory."""
        address = ctypes.c_uint64(0)
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._buffers.append(address)
        return address.value

    def free_bytes(self) -> int:
        """Return GPU memory that nobody uses now, other processes on this GPU included."""
        free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
        _call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def upload(self, address: int, values: NDArray[Any]) -> None:
        """Queue a copy of the contiguous ``values`` to ``address``; keep ``values`` until :meth:`wait`.

        On the stream, because a plain copy from pageable memory may return before it has arrived, and a stream that
        does not wait for the default one would then read the images of the call before.
        """
        target, size = ctypes.c_uint64(address), ctypes.c_size_t(values.nbytes)
        _call("cuMemcpyHtoDAsync_v2", target, _pointer(values), size, self._stream)

    def download(self, address: int, values: NDArray[Any]) -> None:
        """Queue filling the contiguous ``values`` from ``address``; read them after :meth:`wait`."""
        source, size = ctypes.c_uint64(address), ctypes.c_size_t(values.nbytes)
        _call("cuMemcpyDtoHAsync_v2", _pointer(values), source, size, self._stream)

    @contextmanager
    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Lend an array in page-locked host memory, from and to which copies do not pass through the driver's own."""
        address, size = ctypes.c_void_p(), int(np.prod(shape)) * dtype.itemsize
        _call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), 0)
        try:
            block = (ctypes.c_byte * size).from_address(address.value or 0)
            yield np.frombuffer(memoryview(block).cast("B"), dtype=dtype).reshape(shape)
        finally:
            _call("cuMemFreeHost", address)

    @contextmanager
    def events(self, count: int) -> Iterator[list[ctypes.c_void_p]]:
        """Lend so many events that can be timed."""
        made: list[ctypes.c_void_p] = []
        try:
            for _ in range(count):
                event = ctypes.c_void_p()
                _call("cuEventCreate", ctypes.byref(event), 0)  # 0: timed, and waited for by spinning
                made.append(event)
            yield made
        finally:
            for event in made:
                _call("cuEventDestroy_v2", event)

    @contextmanager
    def captured(self, enqueue: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """Capture what ``enqueue`` queues in a CUDA graph, and lend what queues that graph.

        Nothing of it runs while it is captured. A ResultError is raised where it cannot be captured.
        """
        graph, runnable = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            _call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
            try:
                enqueue()
            except BaseException:
                with suppress(ResultError):  # it says once more that the capture failed, and gives the stream back
                    _call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
                raise
            _call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
            _call("cuGraphInstantiateWithFlags", ctypes.byref(runnable), graph, ctypes.c_uint64(0))
            yield lambda: _call("cuGraphLaunch", runnable, self._stream)
        finally:
            if runnable:
                _call("cuGraphExecDestroy", runnable)
            if graph:
                _call("cuGraphDestroy", graph)

    def record(self, event: ctypes.c_void_p) -> None:
        """Queue the event: it happens when everything queued before it is done."""
        _call("cuEventRecord", event, self._stream)

    def elapsed_ms(self, first: ctypes.c_void_p, last: ctypes.c_void_p) -> float:
        """Return milliseconds of GPU time between two past events (:meth:`wait`), resolved to about 0.5 us."""
        time = ctypes.c_float(0)
        _call("cuEventElapsedTime", ctypes.byref(time), first, last)
        return float(time.value)

    def wait_for(self, event: ctypes.c_void_p) -> None:
        """Wait until a recorded event has happened."""
        _call("cuEventSynchronize", event)

    def wait(self) -> None:
        """Wait for everything on the stream."""
        _call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Release memory, stream and context; a second call does nothing."""
        while self._buffers:
            _call("cuMemFree_v2", self._buffers.pop())
        if self._stream:
            _call("cuStreamDestroy_v2", self._stream)
            self._stream = ctypes.c_void_p()
            _call("cuDevicePrimaryCtxRelease_v2", self._device)


def _pointer(values: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)
