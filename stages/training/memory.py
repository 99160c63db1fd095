"""Peak memory of a step: torch's own count on a GPU, the process's resident set on a CPU."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5): set the peak resident set back to the present one


def release_unused() -> None:
    """Hand memory that nothing uses back to the system, or the next peak would count it and hide what it takes.

    glibc keeps what is freed; where the C library is another, only Python's own garbage goes.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakMemory:
    """Peak bytes between ``reset`` and ``read``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Begin to measure anew."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _CLEAR.exists():
            _CLEAR.write_text(_RESET_PEAK)

    def read(self) -> int | None:
        """Return peak bytes since ``reset``: torch's on a GPU, the process's resident set on Linux, None elsewhere."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if not _CLEAR.exists():
            return None
        peak = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
