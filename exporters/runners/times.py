"""What timing an engine gives, and the parts of timing that need no GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitcompress.exporters.cuda import GpuFacts
from vitcompress.exporters.latency import SETTLED, WINDOW, Times, percentiles

QUEUED = 16
"""Inferences queued at once, so that the GPU does not wait for the host between them."""
MIN_SAMPLES, MAX_SAMPLES = 32, 20_000
"""Samples that are taken even when the time is spent, and beyond which more would sharpen nothing."""


@dataclass(frozen=True)
class WarmUp:
    """The calls before those that count."""

    calls: int
    first_ms: float
    """The very first, with what was compiled just in time in it, milliseconds."""
    settled: bool
    """Whether the medians of two windows in a row agreed; False when the time was spent before."""


@dataclass(frozen=True)
class EngineTimes:
    """One engine at one batch size. Times are milliseconds an inference of the whole batch, float64 ``[samples]``."""

    batch: int
    gpu_ms: Times
    """Compute between CUDA events, images and logits staying on the GPU: without transfers."""
    enqueue_ms: Times
    """What queueing one inference took the host."""
    warm_up: WarmUp
    gpu: GpuFacts
    """After timing, so with the clock that the load left it at."""
    flavour: str
    version: str
    """Of TensorRT."""

    @property
    def host_bound(self) -> bool:
        """Whether queueing takes so long that the GPU waited for it: ``gpu_ms`` is then no GPU's speed."""
        return bool(np.median(self.enqueue_ms) > 0.9 * np.median(self.gpu_ms))

    def gpu_percentiles(self) -> tuple[float, float, float | None]:
        """Median, 90th and 99th percentile of ``gpu_ms``; the last None with fewer than 100 samples."""
        return percentiles(self.gpu_ms)

    def method(self) -> str:
        """Return what a reader must know to compare these figures with others, in words."""
        clock = f"SM clock {self.gpu.sm_clock_mhz} MHz" if self.gpu.sm_clock_mhz else "SM clock unknown"
        waits = "; the host queues more slowly than the GPU computes" if self.host_bound else ""
        warm = "settled" if self.warm_up.settled else "not settled"
        return (
            f"{self.gpu.name}, driver {self.gpu.driver or 'unknown'} (CUDA {self.gpu.cuda}), {clock} afterwards, "
            f"{self.flavour} {self.version}; GPU compute by CUDA events without transfers, {QUEUED} inferences queued "
            f"at once; end to end by the wall clock with transfers from pageable memory, one at a time; no CUDA graph; "
            f"first call {self.warm_up.first_ms:.1f} ms, {self.warm_up.calls} warm-up calls, {warm}{waits}"
        )


def warm_up(call: Callable[[], float], spent: Callable[[], bool]) -> WarmUp:
    """Make calls that return their milliseconds until they settle, or until ``spent`` after at least one window."""
    times: list[float] = []
    settled = False
    while not settled and not (len(times) >= WINDOW and spent()):
        times.append(call())
        if len(times) % WINDOW == 0 and len(times) >= 2 * WINDOW:
            before, now = np.median(times[-2 * WINDOW : -WINDOW]), np.median(times[-WINDOW:])
            settled = bool(abs(now - before) <= SETTLED * before)
    return WarmUp(calls=len(times), first_ms=times[0], settled=settled)
