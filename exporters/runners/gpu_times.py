"""One engine timed and its energy taken on the GPU: the measurements, whichever way an inference is queued.

The parts are those of trtexec (samples/common/sampleInference.cpp and sampleReporting.cpp of NVIDIA/TensorRT), which
docs/gpu-timing.md compares with these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.measured_records import GpuParts, Spread
from vitcompress.exporters.cuda import Gpu
from vitcompress.exporters.latency import WARMUP_SHARE, Times, percentiles
from vitcompress.exporters.latency.statistics import CONFIDENCE, student_quantile
from vitcompress.exporters.nvml import Card

Enqueue = Callable[[], object]
"""Queues one inference of what is in GPU memory; returns before it has run."""

QUEUED = 16
"""Inferences timed at once. One more goes before them, so that each finds the GPU busy and the host's part is hidden
as far as it can be, as in trtexec, which queues one ahead."""
MIN_SAMPLES, MAX_SAMPLES = 32, 20_000
"""Fewest samples, taken even when the time is over; and most, since more would not make the figures more exact."""
ENERGY_SECONDS = 1.0
"""Shortest time, seconds, over which energy is measured: the counter advances every 20 to 100 ms."""
MARKS = 6
"""Fewest advances of the counter that energy is computed from."""
STUCK_SECONDS, STUCK_GROUPS = 2.0, 3
"""A counter that has not advanced for so many seconds and so many groups of inferences is given up."""


@dataclass(frozen=True)
class Bench:
    """An engine's memory on both sides, and a clock; inferences of one batch are queued on the GPU's stream."""

    gpu: Gpu
    images: NDArray[Any]
    """In pinned memory, as the engine takes them, ``[B, ...]``."""
    images_at: int
    logits: NDArray[np.float32]
    """In pinned memory, ``[B, K]``."""
    logits_at: int
    clock: Callable[[], float]

    def parts(self, enqueue: Enqueue, seconds: float) -> GpuParts:
        """Time copies, computation and queueing, by CUDA events and the host's clock.

        Warm-up takes a quarter of ``seconds``; at least ``MIN_SAMPLES`` are taken. A ResultError is raised where a call
        fails.
        """
        began = self.clock()
        on_gpu: list[Times] = []
        on_host: list[float] = []
        with self.gpu.events(3 * (QUEUED + 1) + 1) as events:
            self._timed(enqueue, events)
            while self.clock() - began < WARMUP_SHARE * seconds:
                self._timed(enqueue, events)
            while len(on_host) < MIN_SAMPLES or (self.clock() - began < seconds and len(on_host) < MAX_SAMPLES):
                times, queueing = self._timed(enqueue, events)
                on_gpu.append(times)
                on_host += queueing
        h2d, compute, d2h = np.concatenate(on_gpu).T
        return GpuParts(
            enqueue=_spread(1e3 * np.array(on_host)),
            h2d=_spread(h2d),
            compute=_spread(compute),
            d2h=_spread(d2h),
            latency=_spread(h2d + compute + d2h),
            samples=len(on_host),
        )

    def _timed(self, enqueue: Enqueue, events: list[Any]) -> tuple[Times, list[float]]:
        """Return milliseconds ``[QUEUED, 3]`` of the parts of each inference, and seconds of queueing it."""
        queueing = []
        left = iter(events)
        self.gpu.record(next(left))
        for _ in range(QUEUED + 1):
            self.gpu.upload(self.images_at, self.images)
            self.gpu.record(next(left))
            start = self.clock()
            enqueue()
            queueing.append(self.clock() - start)
            self.gpu.record(next(left))
            self.gpu.download(self.logits_at, self.logits)
            self.gpu.record(next(left))
        self.gpu.wait()
        times = np.array([self.gpu.elapsed_ms(one, other) for one, other in pairwise(events)]).reshape(-1, 3)
        return times[1:], queueing[1:]

    def energy(self, enqueue: Enqueue, card: Card | None, seconds: float) -> dict[str, Any]:
        """Return energy as fields of ``GpuTimes``, or the reason why it cannot be measured.

        Inferences with their copies follow each other without a gap: the next ``QUEUED`` are queued before the last
        are waited for. Energy is counted from one advance of the card's counter to another, so that the size of its
        steps costs no accuracy.
        """
        if card is None:
            return no_energy("NVML, which comes with the driver, is not here")
        if card.partitioned():
            return no_energy("the GPU is partitioned (MIG), and its energy counter is of all parts together")
        last = card.millijoules()
        if last is None:
            return no_energy("this GPU has no energy counter")
        seconds = max(seconds, ENERGY_SECONDS)
        marks: list[tuple[float, int, int]] = []  # seconds, images, millijoules
        images, groups, changed = 0, 0, self.clock()
        with self.gpu.events(2) as events:
            before, after = events
            self._group(enqueue, after)
            while len(marks) < MARKS or marks[-1][0] - marks[0][0] < seconds:
                before, after = after, before
                self._group(enqueue, after)
                self.gpu.wait_for(before)
                images += QUEUED * len(self.images)
                groups += 1
                now, told = self.clock(), card.millijoules()
                if told is not None and told != last:
                    marks.append((now, images, told))
                    last, changed, groups = told, now, 0
                elif now - changed > STUCK_SECONDS and groups >= STUCK_GROUPS:
                    break
            self.gpu.wait()
        if len(marks) < MARKS:
            return no_energy(f"the GPU's energy counter did not advance within {STUCK_SECONDS:g} s")
        return energy_of(marks)

    def _group(self, enqueue: Enqueue, event: Any) -> None:
        for _ in range(QUEUED):
            self.gpu.upload(self.images_at, self.images)
            enqueue()
            self.gpu.download(self.logits_at, self.logits)
        self.gpu.record(event)


def _spread(milliseconds: Times) -> Spread:
    p50, p90, p99 = percentiles(milliseconds)
    return Spread(p50_ms=p50, p90_ms=p90, p99_ms=p99)


def no_energy(reason: str) -> dict[str, Any]:
    """Return that energy was not measured, and why, as fields of ``GpuTimes``."""
    return {"joules": None, "joules_reason": reason}


def energy_of(marks: list[tuple[float, int, int]]) -> dict[str, Any]:
    """Return joules an image and mean power: the slope of energy over images, with Student's interval.

    A mark comes late by up to one group of inferences, each mark for itself: that is the scatter around the line.
    Between neighbouring marks it would be a large part of the energy; along the line it averages out.
    """
    seconds, images, millijoules = (np.array(column, dtype=np.float64) for column in zip(*marks, strict=True))
    joules = (millijoules - millijoules[0]) / 1e3  # a driver that was loaded long ago has counted to 10^12
    (slope, _), covariance = np.polyfit(images, joules, 1, cov=True)
    half = student_quantile(len(marks) - 2, CONFIDENCE) * math.sqrt(covariance[0, 0])
    return {
        "joules": float(slope),
        "joules_low": float(slope - half),
        "joules_high": float(slope + half),
        "watts": float(joules[-1] / (seconds[-1] - seconds[0])),
    }
