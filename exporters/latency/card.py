"""A watch on the GPU while something is timed: its clocks, what held them down, and whether others use it.

Which reasons count as throttling, and why, is in docs/gpu-timing.md.
"""

from __future__ import annotations

import threading
import time
from typing import Self

from vitcompress.core.measured_records import CardState
from vitcompress.exporters.cuda import gpu_present, pci_address
from vitcompress.exporters.nvml import LIMITERS, Card, Reading

SECONDS_BETWEEN = 0.2
"""Between two readings: often enough to see a card slow down, so seldom that few of the timed calls meet one."""
REST_SECONDS = 1.0
"""Seconds of rest before a watch begins. This process runs nothing then, so what the card does is the work of others,
and its power is idle power. NVML averages over up to a second."""
SLOWED = 0x08 | 0x20 | 0x40 | 0x80
"""Bits of ``LIMITERS`` that count as throttling. A software power cap is not among them: many cards run large products
at it all the time, and so will the deployed model."""
TOLERATED = 0.1
"""A larger share of readings with one of ``SLOWED`` means that the card was throttled. (A change of clocks, too, shows
one for a moment.)"""
BUSY_PERCENT = 5
"""Utilisation from which the card counts as used by others while this process rests."""


class Watch:
    """Watches the first GPU while a ``with`` block runs; ``card`` can be read in the block.

    Entering takes ``REST_SECONDS`` where there is something to watch.
    """

    def __init__(self) -> None:
        self.card: Card | None = None
        """None where there is no GPU, or no NVML for it."""
        self._readings: list[Reading] = []
        self._rest: Reading | None = None
        self._busy: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        if not gpu_present():
            return self
        card = Card(pci_address())
        if not card.found:
            card.close()
            return self
        self.card = card
        time.sleep(REST_SECONDS)
        self._busy, self._rest = card.busy(), card.read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.card is None:
            return
        self._over.set()
        self._thread.join()
        self._readings.append(self.card.read())  # clocks are still up; a short measurement has no other
        self.card.close()
        self.card = None

    def _look(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            if self.card is not None:
                self._readings.append(self.card.read())

    def state(self) -> CardState | None:
        """Return what was seen, once the watch is left; None where nothing could be watched."""
        if self._rest is None:
            return None
        found = self._readings
        masks = [one.limited for one in found]
        limited = {name: _share(masks, bit) for bit, name in LIMITERS.items() if _share(masks, bit)}
        processes = max((one.processes for one in (self._rest, *found) if one.processes is not None), default=None)
        return CardState(
            readings=len(found),
            sm_mhz=_range([one.sm_mhz for one in found]),
            memory_mhz=_range([one.memory_mhz for one in found]),
            celsius=_range([one.celsius for one in found]),
            limited=limited,
            processes=processes,
            busy_before=self._busy,
            idle_watts=None if self._rest.milliwatts is None else self._rest.milliwatts / 1000,
            disturbed="; ".join(filter(None, (_throttled(masks), _shared(processes, self._busy)))),
        )


def _throttled(masks: list[int]) -> str:
    slowed = _share(masks, SLOWED)
    if slowed <= TOLERATED:
        return ""
    names = " and ".join(name for bit, name in LIMITERS.items() if bit & SLOWED and _share(masks, bit))
    return f"the GPU was throttled in {slowed:.0%} of the readings ({names})"


def _shared(processes: int | None, busy: int | None) -> str:
    if processes is not None and processes > 1:
        return f"{processes} processes used the GPU"
    return f"others kept the GPU {busy} % busy" if busy is not None and busy >= BUSY_PERCENT else ""


def _share(masks: list[int], bits: int) -> float:
    return sum(bool(mask & bits) for mask in masks) / max(len(masks), 1)


def _range(values: list[int | None]) -> tuple[int, int] | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None
