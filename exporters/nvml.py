"""What NVML, which comes with the driver, tells of one card: clocks, temperature, power, energy, who else uses it.

Through ctypes, because ten calls with numbers as arguments are all that is needed, and the library itself is on every
machine with a driver: a measurement then needs no package that a machine with a bundle alone may lack. What a driver
or a card does not tell is None, never an error.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple, Self

_SM, _MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_INSUFFICIENT_SIZE = 7  # NVML_ERROR_INSUFFICIENT_SIZE: there are processes, and none were asked for

LIMITERS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability limit",
}
"""Bits of ``nvmlClocksEventReasons`` (nvml.h), but for those of an idle card and of clocks that the user has set."""


class Reading(NamedTuple):
    """The card at one moment. What the driver does not tell is None; ``limited`` is then 0."""

    sm_mhz: int | None
    memory_mhz: int | None
    celsius: int | None
    milliwatts: int | None
    limited: int
    """What holds the clocks down: bits as in ``LIMITERS``."""
    processes: int | None
    """Processes with a compute context on the card; a container may see none, not even its own."""


class Card:
    """The card at a PCI address, such as ``0000:3B:00.0``; use it in a ``with``.

    ``found`` is False where NVML is not installed or does not know the card; then everything is None.
    """

    def __init__(self, address: bytes) -> None:
        self._handle = ctypes.c_void_p()
        self._nvml: Any = None
        self.found = False
        try:
            nvml: Any = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        except OSError:
            return
        if nvml.nvmlInit_v2() == 0:
            self._nvml = nvml
            self.found = nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(self._handle)) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release NVML; a second call does nothing."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml, self.found = None, False

    def driver(self) -> str | None:
        """Return the driver's own version, such as ``580.65.06``."""
        text = ctypes.create_string_buffer(96)
        told = self._nvml is not None and self._nvml.nvmlSystemGetDriverVersion(text, 96) == 0
        return text.value.decode(errors="replace") if told else None

    def read(self) -> Reading:
        """Return what the card tells now."""
        # The second is the name before driver 535.
        limited = self._number("nvmlDeviceGetCurrentClocksEventReasons", kind=ctypes.c_ulonglong)
        if limited is None:
            limited = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong)
        return Reading(
            sm_mhz=self._number("nvmlDeviceGetClockInfo", _SM),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", _MEMORY),
            celsius=self._number("nvmlDeviceGetTemperature", 0),  # 0: of the chip
            milliwatts=self._number("nvmlDeviceGetPowerUsage"),
            limited=limited or 0,
            processes=self._processes(),
        )

    def millijoules(self) -> int | None:
        """Return the whole card's energy since the driver was loaded; it advances every 20 to 100 ms."""
        return self._number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)

    def busy(self) -> int | None:
        """Return percent of the last sampling period (1/6 to 1 s) in which anything ran on the card."""
        return self._number("nvmlDeviceGetUtilizationRates", kind=ctypes.c_uint * 2)  # the second is of its memory

    def partitioned(self) -> bool:
        """Return whether the card is in MIG mode: then power and energy are of all its parts together."""
        pending = ctypes.c_uint(0)
        current = self._number("nvmlDeviceGetMigMode", after=(ctypes.byref(pending),))
        return current == 1

    def _processes(self) -> int | None:
        if self.partitioned():  # those of other parts take no time from this one
            return None
        count = ctypes.c_uint(0)
        function = getattr(self._nvml, "nvmlDeviceGetComputeRunningProcesses_v3", None) if self.found else None
        if function is None or function(self._handle, ctypes.byref(count), None) not in (0, _INSUFFICIENT_SIZE):
            return None
        return count.value

    def _number(self, name: str, *before: int, kind: Any = ctypes.c_uint, after: tuple[Any, ...] = ()) -> int | None:
        """Return what a function of the card writes at the address that it is given; the first of several numbers."""
        place = kind()
        function = getattr(self._nvml, name, None) if self.found else None
        if function is None or function(self._handle, *before, ctypes.byref(place), *after) != 0:
            return None
        return int(place[0] if isinstance(place, ctypes.Array) else place.value)
