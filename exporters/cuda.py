"""The few CUDA driver calls that running an engine needs, through ctypes: no torch, no CUDA toolkit, only the driver.

The driver library is wherever a driver is; the runtime library hides in one of several wheels. TensorRT uses the
device's primary context, and so does this.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.errors import EnvironmentLacksError, ResultError

_NVML_CLOCK_SM = 1
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
    sm_clock_mhz: int | None
    """Clock of the multiprocessors at this moment, MHz; None when NVML is not here or does not tell."""


def gpu_facts() -> GpuFacts:
    """Return the first GPU and its driver now; an EnvironmentLacksError is raised where there is none."""
    device, number = ctypes.c_int(0), ctypes.c_int(0)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    name, address = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    _call("cuDeviceGetName", name, 256, device)
    _call("cuDeviceGetPCIBusId", address, 32, device)
    digits = []
    for attribute in (_MAJOR, _MINOR):
        _call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        digits.append(str(number.value))
    _call("cuDriverGetVersion", ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return GpuFacts(name.value.decode(errors="replace"), ".".join(digits), cuda, *_from_nvml(address.value))


def gpu_name_and_capability() -> tuple[str, str]:
    """Return name and compute capability of the first GPU, such as ``("NVIDIA A10", "8.6")``."""
    facts = gpu_facts()
    return facts.name, facts.capability


def _from_nvml(address: bytes) -> tuple[str | None, int | None]:
    """Return driver version and SM clock (MHz) of the GPU at a PCI address, which both libraries call it by."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None, None
    if nvml.nvmlInit_v2() != 0:
        return None, None
    text, handle, clock = ctypes.create_string_buffer(96), ctypes.c_void_p(), ctypes.c_uint(0)
    told = nvml.nvmlSystemGetDriverVersion(text, 96) == 0
    found = nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)) == 0
    ticking = found and nvml.nvmlDeviceGetClockInfo(handle, _NVML_CLOCK_SM, ctypes.byref(clock)) == 0
    nvml.nvmlShutdown()
    return text.value.decode(errors="replace") if told else None, clock.value if ticking else None


class Gpu:
    """The first GPU's primary context, a stream and some memory; all given back at the end of the ``with`` block."""

    def __init__(self) -> None:
        self._device = ctypes.c_int(0)
        self._buffers: list[ctypes.c_uint64] = []
        self._events: list[ctypes.c_void_p] = []
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

    def event(self) -> ctypes.c_void_p:
        """Return a new event that can be timed; given back with the rest."""
        event = ctypes.c_void_p()
        _call("cuEventCreate", ctypes.byref(event), 0)  # 0: timed, and waited for by spinning
        self._events.append(event)
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """Queue the event: it happens when everything queued before it is done."""
        _call("cuEventRecord", event, self._stream)

    def elapsed_ms(self, first: ctypes.c_void_p, last: ctypes.c_void_p) -> float:
        """Return milliseconds of GPU time between two past events (:meth:`wait`), resolved to about 0.5 us."""
        time = ctypes.c_float(0)
        _call("cuEventElapsedTime", ctypes.byref(time), first, last)
        return float(time.value)

    def wait(self) -> None:
        """Wait for everything on the stream."""
        _call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give events, memory, stream and context back; again is harmless."""
        while self._events:
            _call("cuEventDestroy_v2", self._events.pop())
        while self._buffers:
            _call("cuMemFree_v2", self._buffers.pop())
        if self._stream:
            _call("cuStreamDestroy_v2", self._stream)
            self._stream = ctypes.c_void_p()
            _call("cuDevicePrimaryCtxRelease_v2", self._device)


def _pointer(values: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)
