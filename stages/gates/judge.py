"""Gates: one named limit on one measured number, judged on its interval and not on the point alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vitcompress.core.artifact_records import GateRow

Quantity = Literal["drop", "top1", "agreement", "speedup", "latency_ms", "size_mb", "teacher_gain"]
Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]


@dataclass(frozen=True)
class Measurement:
    """One number about one artifact, or why there is none.

    Raises:
        ValueError: half an interval, an interval without a value or upside down, or no value and no reason.
    """

    quantity: Quantity
    """drop and teacher_gain: points; top1 and agreement: percent; speedup: ratio; latency_ms: milliseconds; size_mb:
    10^6 bytes."""
    value: float | None
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval; both None when the value is exact (a file's size)."""
    reason: str = ""
    """Why there is no value."""

    def __post_init__(self) -> None:
        name = self.quantity
        if (self.low is None) != (self.high is None) or (self.value is None and self.low is not None):
            raise ValueError(f"{name}: value {self.value} with interval [{self.low}, {self.high}] is incomplete.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{name}: interval [{self.low}, {self.high}] is upside down.")
        if self.value is None and not self.reason:
            raise ValueError(f"{name}: a missing value needs a reason.")


@dataclass(frozen=True)
class Judged:
    """One artifact, or the run itself, as it comes before the judge.

    Raises:
        ValueError: a quantity was measured twice.
    """

    artifact: str
    """What a reader calls it."""
    limits: Mapping[str, float | None]
    """By the names of ``Limits`` and ``GatesConfig``; None is not judged."""
    measurements: Sequence[Measurement]
    required: bool
    """Whether an open verdict about it can fail the run."""

    def __post_init__(self) -> None:
        if len({item.quantity for item in self.measurements}) != len(self.measurements):
            raise ValueError(f"{self.artifact}: a quantity was measured twice; which one counts is not defined.")


@dataclass(frozen=True)
class Gate:
    """What a limit is a limit on."""

    field: str
    quantity: Quantity
    upper: bool
    """Whether the limit is the largest allowed value, rather than the smallest."""


GATES = (
    Gate("max_accuracy_drop", "drop", upper=True),
    Gate("min_accuracy", "top1", upper=False),
    Gate("min_agreement", "agreement", upper=False),
    Gate("min_speedup", "speedup", upper=False),
    Gate("max_latency_ms", "latency_ms", upper=True),
    Gate("max_size_mb", "size_mb", upper=True),
    Gate("min_teacher_gain", "teacher_gain", upper=False),
)


def judge(artifacts: Sequence[Judged], *, require_conclusive: bool) -> tuple[GateRow, ...]:
    """One row for every limit that is set for an artifact; by limit, then in the order of ``artifacts``.

    ``required`` of a row says whether its verdict, when not ``pass``, fails the run (a ``fail`` always does): for
    required artifacts, and for an inconclusive one only with ``require_conclusive``.
    """
    rows = []
    for gate in GATES:
        for judged in artifacts:
            limit = judged.limits.get(gate.field)
            if limit is not None:
                missing = Measurement(gate.quantity, None, reason="nothing in this run measured it")
                found = next((item for item in judged.measurements if item.quantity == gate.quantity), missing)
                rows.append(_row(gate, float(limit), _only_finite(found), judged, require_conclusive))
    return tuple(rows)


def passed(rows: Sequence[GateRow]) -> bool:
    """Whether the run passes: nothing failed, and nothing that is required was left open."""
    return not any(row.blocks for row in rows)


def verdict_on(
    limit: float, value: float, low: float | None, high: float | None, *, upper: bool
) -> tuple[Verdict, str]:
    """The verdict on a measured number and its reason in words; a value exactly at the limit is inside it.

    Args:
        limit: the largest allowed value with ``upper``, else the smallest.
        value: judged alone where there is no interval.
        low: lower end of the interval.
        high: upper end of the interval.
        upper: which side of the limit is allowed.
    """
    low = value if low is None else low
    high = value if high is None else high
    worst, best = (high, low) if upper else (low, high)

    def inside(number: float) -> bool:
        return number <= limit if upper else number >= limit

    what = "the value" if low == high else "the whole interval"
    if inside(worst):
        return "pass", f"{what} is within the limit"
    if not inside(best):
        return "fail", f"{what} is beyond the limit"
    return "inconclusive", "the limit lies inside the interval: more images or more time would tell"


def _only_finite(item: Measurement) -> Measurement:
    """The measurement, or none at all when any of its numbers is NaN or infinite."""
    if all(number is None or math.isfinite(number) for number in (item.value, item.low, item.high)):
        return item
    return Measurement(item.quantity, None, reason="the measured value is not a finite number")


def _row(gate: Gate, limit: float, item: Measurement, judged: Judged, require_conclusive: bool) -> GateRow:
    verdict: Verdict = "unmeasured"
    why = item.reason
    if item.value is not None:
        verdict, why = verdict_on(limit, item.value, item.low, item.high, upper=gate.upper)
    return GateRow(
        gate=gate.field,
        artifact=judged.artifact,
        limit=limit,
        value=item.value,
        low=item.low,
        high=item.high,
        verdict=verdict,
        required=judged.required and (verdict != "inconclusive" or require_conclusive),
        why=why,
    )
