"""A CUDA driver over ordinary memory, to check on any machine that what is asked of the real one is consistent."""

from __future__ import annotations

import ctypes
from typing import Any


class FakeDriver:
    """The driver's functions over ordinary memory; what is given back is taken off the lists."""

    def __init__(self, devices: int = 1, status: int = 0) -> None:
        self.devices, self.status = devices, status
        self.limit = 10_000
        self.memory: dict[int, Any] = {}
        self.now_ms = 0.0
        """GPU time; advanced by whoever runs something."""
        self.events: dict[int, float] = {}
        self.nvml = 0

    def cuInit(self, flags: int) -> int:  # noqa: N802  # the driver's names
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 6}[attribute]
        return 0

    def cuDeviceGetName(self, buffer: Any, size: int, device: Any) -> int:  # noqa: N802
        buffer.value = b"NVIDIA A10"
        return 0

    def cuGetErrorString(self, status: int, text: Any) -> int:  # noqa: N802
        text._obj.value = b"out of memory"
        return 0

    def cuStreamCreate(self, stream: Any, flags: int) -> int:  # noqa: N802
        stream._obj.value = 77
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        if size.value > self.limit:
            return 2
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.memory[address._obj.value] = block
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.memory[address.value]
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        total._obj.value = 1_000_000
        free._obj.value = 1_000_000 - sum(len(block) for block in self.memory.values())
        return 0

    def cuMemcpyHtoDAsync_v2(self, target: Any, source: Any, size: Any, stream: Any) -> int:  # noqa: N802
        assert stream.value == 77
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    cuMemcpyDtoHAsync_v2 = cuMemcpyHtoDAsync_v2  # noqa: N815

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGetPCIBusId(self, address: Any, size: int, device: Any) -> int:  # noqa: N802
        address.value = b"0000:3B:00.0"
        return 0

    def cuEventCreate(self, event: Any, flags: int) -> int:  # noqa: N802
        event._obj.value = 1000 + len(self.events)
        self.events[event._obj.value] = -1.0
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:  # noqa: N802
        assert stream.value == 77
        self.events[event.value] = self.now_ms
        return 0

    def cuEventElapsedTime(self, time: Any, first: Any, last: Any) -> int:  # noqa: N802
        assert self.events[first.value] >= 0
        time._obj.value = self.events[last.value] - self.events[first.value]
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.nvml

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, address: bytes, handle: Any) -> int:  # noqa: N802
        assert address == b"0000:3B:00.0"
        handle._obj.value = 5
        return 0

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int, clock: Any) -> int:  # noqa: N802
        assert (handle.value, kind) == (5, 1)
        clock._obj.value = 1410
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0
