"""A CUDA driver over ordinary memory, to check on any machine that what is asked of the real one is consistent."""

from __future__ import annotations

import ctypes
from typing import Any


class FakeDriver:
    """The driver's functions over ordinary memory, and NVML's; what is given back is taken off the lists.

    Copies and kernels take GPU time as they are queued; between the two halves of a capture nothing does.
    """

    def __init__(self, devices: int = 1, status: int = 0) -> None:
        self.devices, self.status = devices, status
        self.limit = 10_000
        self.memory: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.now_ms = 0.0
        """GPU time."""
        self.copy_ms = {"to": 0.0, "from": 0.0}
        self.events: dict[int, float] = {}
        self.made = 1000
        """The last handle that was given out."""
        self.graphs: dict[int, Any] = {}
        """What launching runs, by handle; None for a graph that is not instantiated."""
        self.capturing: list[Any] | None = None
        """What was queued since the capture began; None when there is none."""
        self.capture_status = 0
        """What ends a capture."""
        self.called: list[str] = []
        """The calls that a measurement is made of, in order."""
        self.nvml = 0
        self.watts = 100.0
        """Power while something runs; the counter of energy advances with ``now_ms``."""
        self.counter: int | None = 0
        """Millijoules before that; None where the card has none."""
        self.reasons = 0
        self.reading = 0
        """Readings that were taken of the card."""
        self.processes = 1
        self.busy = 0
        self.mig = 0

    def handle(self) -> int:
        """A new one."""
        self.made += 1
        return self.made

    def run(self, what: Any) -> None:
        """Queue something that takes GPU time: done at once, or part of the graph that is captured."""
        if self.capturing is None:
            what()
        else:
            self.capturing.append(what)

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
        return self._copy("to", target, source, size, stream)

    def cuMemcpyDtoHAsync_v2(self, target: Any, source: Any, size: Any, stream: Any) -> int:  # noqa: N802
        return self._copy("from", target, source, size, stream)

    def _copy(self, way: str, target: Any, source: Any, size: Any, stream: Any) -> int:
        assert stream.value == 77
        self.called.append(way)
        ctypes.memmove(target.value, source.value, size.value)
        self.now_ms += self.copy_ms[way]
        return 0

    def cuMemHostAlloc(self, address: Any, size: Any, flags: int) -> int:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.host[address._obj.value] = block
        return 0

    def cuMemFreeHost(self, address: Any) -> int:  # noqa: N802
        del self.host[address.value]
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:  # noqa: N802
        assert (stream.value, mode) == (77, 1)
        self.called.append("capture")
        self.capturing = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:  # noqa: N802
        assert stream.value == 77
        queued, self.capturing = self.capturing, None
        if self.capture_status == 0:
            graph._obj.value = self.handle()
            self.graphs[graph._obj.value] = queued
        return self.capture_status

    def cuGraphInstantiateWithFlags(self, runnable: Any, graph: Any, flags: Any) -> int:  # noqa: N802
        runnable._obj.value = self.handle()
        self.graphs[runnable._obj.value] = self.graphs[graph.value]
        return 0

    def cuGraphLaunch(self, runnable: Any, stream: Any) -> int:  # noqa: N802
        assert stream.value == 77
        self.called.append("launch")
        for what in self.graphs[runnable.value]:
            what()
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        del self.graphs[graph.value]
        return 0

    cuGraphExecDestroy = cuGraphDestroy  # noqa: N815

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGetPCIBusId(self, address: Any, size: int, device: Any) -> int:  # noqa: N802
        address.value = b"0000:3B:00.0"
        return 0

    def cuEventCreate(self, event: Any, flags: int) -> int:  # noqa: N802
        event._obj.value = self.handle()
        self.events[event._obj.value] = -1.0
        return 0

    def cuEventDestroy_v2(self, event: Any) -> int:  # noqa: N802
        del self.events[event.value]
        return 0

    def cuEventSynchronize(self, event: Any) -> int:  # noqa: N802
        assert self.events[event.value] >= 0
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:  # noqa: N802
        assert stream.value == 77
        self.called.append("record")
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
        assert handle.value == 5
        clock._obj.value = {1: 1410, 2: 6251}[kind]
        return 0

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int, celsius: Any) -> int:  # noqa: N802
        self.reading += 1
        celsius._obj.value = 40 + self.reading
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:  # noqa: N802
        milliwatts._obj.value = 32_000
        return 0

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any, reasons: Any) -> int:  # noqa: N802
        reasons._obj.value = self.reasons
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, infos: None) -> int:  # noqa: N802
        count._obj.value = self.processes
        return 7 if self.processes else 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:  # noqa: N802
        rates._obj[0] = self.busy
        return 0

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        current._obj.value = self.mig
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> int:  # noqa: N802
        if self.counter is None:
            return 3
        millijoules._obj.value = int(self.counter + self.watts * (self.now_ms // 50 * 50))  # every 50 ms
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0
