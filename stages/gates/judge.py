"""Gates: one named limit on one measured number, judged on its interval and not on the point alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.artifact_records import GateRow
from stages.gates.config import GatesConfig

Quantity = Literal["drop", "top1", "speedup", "latency_ms", "size_mb"]
Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]


@dataclass(frozen=True)
class Measurement:
    """One number about one artifact, or why there is none.

    Raises:
        ValueError: half an interval, an interval without a value or upside down, or no value and no reason.
    """

    artifact: str
    """``onnx`` or ``engine``."""
    quantity: Quantity
    """drop: points; top1: percent; speedup: ratio; latency_ms: milliseconds; size_mb: 10^6 bytes."""
    value: float | None
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval; both None when the value is exact (a file's size)."""
    reason: str = ""
    """Why there is no value."""

    def __post_init__(self) -> None:
        name = f"{self.artifact} {self.quantity}"
        if (self.low is None) != (self.high is None) or (self.value is None and self.low is not None):
            raise ValueError(f"{name}: value {self.value} with interval [{self.low}, {self.high}] is incomplete.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{name}: interval [{self.low}, {self.high}] is upside down.")
        if self.value is None and not self.reason:
            raise ValueError(f"{name}: a missing value needs a reason.")


@dataclass(frozen=True)
class Gate:
    """What a limit of GatesConfig is a limit on."""

    field: str
    quantity: Quantity
    upper: bool
    """Whether the limit is the largest allowed value, rather than the smallest."""


GATES = (
    Gate("max_accuracy_drop", "drop", upper=True),
    Gate("min_accuracy", "top1", upper=False),
    Gate("min_speedup", "speedup", upper=False),
    Gate("max_latency_ms", "latency_ms", upper=True),
    Gate("max_size_mb", "size_mb", upper=True),
)


def judge(gates: GatesConfig, measurements: Sequence[Measurement]) -> tuple[GateRow, ...]:
    """One row for every limit that is set and every artifact it is applied to, in that order.

    ``required`` of a row says whether its verdict, when not ``pass``, fails the run (a ``fail`` always does): for
    artifacts in ``gates.require``, and for an inconclusive one only with ``gates.require_conclusive``.

    Raises:
        ValueError: two measurements of one quantity of one artifact.
    """
    known = {(item.artifact, item.quantity): item for item in measurements}
    if len(known) != len(measurements):
        raise ValueError("a quantity of an artifact was measured twice; which one counts is not defined.")
    rows = []
    for gate in GATES:
        limit = getattr(gates, gate.field)
        if limit is None:
            continue
        for artifact in gates.artifacts:
            missing = Measurement(artifact, gate.quantity, None, reason="nothing in this run measured it")
            measurement = known.get((artifact, gate.quantity), missing)
            rows.append(_row(gate, float(limit), _only_finite(measurement), gates))
    return tuple(rows)


def passed(rows: Sequence[GateRow]) -> bool:
    """Whether the run passes: nothing failed, and nothing that is required was left open."""
    return not any(row.verdict == "fail" or (row.required and row.verdict != "pass") for row in rows)


def _only_finite(item: Measurement) -> Measurement:
    """The measurement, or none at all when any of its numbers is NaN or infinite."""
    if all(number is None or math.isfinite(number) for number in (item.value, item.low, item.high)):
        return item
    return Measurement(item.artifact, item.quantity, None, reason="the measured value is not a finite number")


def _row(gate: Gate, limit: float, item: Measurement, gates: GatesConfig) -> GateRow:
    verdict, why = _verdict(gate.upper, limit, item)
    required = item.artifact in gates.require and (verdict != "inconclusive" or gates.require_conclusive)
    return GateRow(
        gate=gate.field,
        artifact=item.artifact,
        limit=limit,
        value=item.value,
        low=item.low,
        high=item.high,
        verdict=verdict,
        required=required,
        why=why,
    )


def _verdict(upper: bool, limit: float, item: Measurement) -> tuple[Verdict, str]:
    """The verdict and its reason in words; a value exactly at the limit is inside it."""
    if item.value is None:
        return "unmeasured", item.reason
    low = item.value if item.low is None else item.low
    high = item.value if item.high is None else item.high
    worst, best = (high, low) if upper else (low, high)

    def inside(number: float) -> bool:
        return number <= limit if upper else number >= limit

    what = "the value" if item.low is None else "the whole interval"
    if inside(worst):
        return "pass", f"{what} is within the limit"
    if not inside(best):
        return "fail", f"{what} is beyond the limit"
    return "inconclusive", "the limit lies inside the interval: more images or more time would tell"
