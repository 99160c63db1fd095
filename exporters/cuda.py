"""The few CUDA driver calls that running an engine needs, through ctypes: no torch, no CUDA toolkit, only the driver.

The driver library is wherever a driver is; the runtime library hides in one of several wheels. TensorRT uses the
device's primary context, and so does this.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from core.errors import EnvironmentLacksError, ResultError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@cache
def _driver() -> Any:
    """The driver library, initialised; None when there is none or it finds no device."""
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
    """Whether an NVIDIA driver is here, starts, and sees at least one GPU."""
    return _driver() is not None


def _need_driver() -> Any:
    library = _driver()
    if library is None:
        raise EnvironmentLacksError("this needs an NVIDIA GPU with its driver, and none was found on this machine.")
    return library


def _call(name: str, *arguments: Any) -> None:
    """One driver call.

    Raises:
        EnvironmentLacksError: there is no GPU.
        ResultError: the call failed.
    """
    library = _need_driver()
    status = getattr(library, name)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown error"
        raise ResultError(f"CUDA call {name} failed: {reason} (error {status}).")


def gpu_name_and_capability() -> tuple[str, str]:
    """Name and compute capability of the first GPU, such as ``("NVIDIA A10", "8.6")``.

    Raises:
        EnvironmentLacksError: there is no GPU.
    """
    device, number = ctypes.c_int(0), ctypes.c_int(0)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, 256, device)
    digits = []
    for attribute in (_MAJOR, _MINOR):
        _call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        digits.append(str(number.value))
    return name.value.decode(errors="replace"), ".".join(digits)


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

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stream(self) -> int:
        """Handle of the stream, for TensorRT."""
        return self._stream.value or 0

    def allocate(self, size: int) -> int:
        """Address of ``size`` new bytes of GPU memory."""
        address = ctypes.c_uint64(0)
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._buffers.append(address)
        return address.value

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

    def wait(self) -> None:
        """Wait for everything on the stream."""
        _call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give memory, stream and context back; again is harmless."""
        while self._buffers:
            _call("cuMemFree_v2", self._buffers.pop())
        if self._stream:
            _call("cuStreamDestroy_v2", self._stream)
            self._stream = ctypes.c_void_p()
            _call("cuDevicePrimaryCtxRelease_v2", self._device)


def _pointer(values: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)
