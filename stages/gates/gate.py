"""What a gate is: a limit on a measured number, with its setting, its measurement, its test and its words (torch-free).

Limits are tested against the interval of a measurement, never against its value alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from vitcompress.core.artifact_records import BundleRecord, ExportRecord
from vitcompress.core.measured_records import AccuracyRow, FootprintRow, GateRow, LatencyRow, VerifyRecord
from vitcompress.core.record import Record
from vitcompress.core.records import ControlRecord, DataRecord

Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]
Subject = TypeVar("Subject")
"""What a gate measures: ``Measured`` of an artifact, ``Inputs`` of the whole run."""


@dataclass(frozen=True)
class Inputs:
    """Records that gates measure from."""

    data: DataRecord
    control: ControlRecord
    export: ExportRecord
    verify: VerifyRecord
    bundle: BundleRecord


@dataclass(frozen=True)
class Measured:
    """What a run measured of one artifact."""

    inputs: Inputs
    accuracy: AccuracyRow
    latency: LatencyRow
    """At batch 1."""
    bytes: int | None
    """Of all its files; None when not recorded."""

    @property
    def footprint(self) -> FootprintRow | None:
        """What it takes to deploy; None where that was not measured."""
        return self.inputs.verify.footprint_of(self.accuracy)


@dataclass(frozen=True)
class Measurement:
    """One number in the unit of its gate, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    """Ends of the interval; both None when the value is exact (a file's size)."""
    reason: str = ""
    """Why there is no value; of an exact one, how it is known."""
    disturbed: str = ""
    """What happened meanwhile that makes the value no basis for a verdict; empty when nothing did."""
    never: bool = False
    """Whether such an artifact never has this number: then it is not required of it."""


def number(row: Record, name: str, reason: str, value: str = "") -> Measurement:
    """Return a number that a record keeps with the ends of its interval, or ``reason`` where it is None.

    The ends are the fields ``name_low`` and ``name_high``; the number is ``value``, or ``name`` where that is empty. A
    record that knows a disturbance says so in ``disturbed``.
    """
    found = getattr(row, value or name)
    if found is None:
        return Measurement(None, reason=reason)
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    return Measurement(found, low, high, disturbed=getattr(row, "disturbed", ""))


@dataclass(frozen=True, eq=False, kw_only=True)
class Gate(Generic[Subject]):
    """One limit on one number."""

    field: str
    """Name of its setting: ``max_`` for the largest allowed value, ``min_`` for the smallest."""
    label: str
    """What a reader calls the number."""
    unit: str
    measure: Callable[[Subject], Measurement]
    """Takes the number from what was measured."""
    setting: tuple[Any, Any] | None = None
    """Its setting in ``gates`` of the config: type and field, as ``pydantic.create_model`` takes them."""

    @property
    def upper(self) -> bool:
        """Whether the limit is the largest allowed value, rather than the smallest."""
        return self.field.startswith("max_")

    @property
    def relation(self) -> str:
        """What stands between the number and its limit in a sentence."""
        return "at most" if self.upper else "at least"

    def words(self) -> dict[str, str]:
        """Return what a row needs besides to be read."""
        return {"label": self.label, "relation": self.relation, "unit": self.unit}

    def test(self, limit: float, value: float, found: Measurement, subject: Subject) -> tuple[Verdict, str]:
        """Return the verdict on a measured value with its interval, and its reason in words."""
        return verdict_on(limit, value, found.low, found.high, upper=self.upper)

    def row(
        self, artifact: str, limit: float, subject: Subject | str, *, required: bool, require_conclusive: bool
    ) -> GateRow:
        """Return the judged row of a subject, or of the reason why nothing of it is measured.

        Where it is ``required``, an open verdict fails the command, ``inconclusive`` with ``require_conclusive`` alone.
        """
        found = Measurement(None, reason=subject) if isinstance(subject, str) else self.measure(subject)
        if not all(math.isfinite(number or 0.0) for number in (found.value, found.low, found.high)):
            found = Measurement(None, reason="the measured value is not a finite number")
        verdict: Verdict = "unmeasured"
        why = found.reason
        if found.value is not None and not isinstance(subject, str):
            verdict, why = self.test(limit, found.value, found, subject)
            if found.disturbed:
                verdict = "inconclusive"
                why = f"{found.disturbed}: measure again on a cool GPU that nothing else uses"
        return GateRow(
            gate=self.field,
            artifact=artifact,
            limit=limit,
            value=found.value,
            low=found.low,
            high=found.high,
            verdict=verdict,
            required=required and not found.never and (verdict != "inconclusive" or require_conclusive),
            why=found.reason or why,
        )


class ArtifactGate(Gate[Measured]):
    """A limit on a number of one artifact."""


class RunGate(Gate[Inputs]):
    """A limit on a number of the whole run. Whoever sets it requires it: ``unmeasured`` fails the run."""


def limit(description: str, **bounds: Any) -> tuple[Any, Any]:
    """Return the setting of a limit: a number, or null, the default, for which nothing is judged.

    The description has the unit; ``bounds`` are ``ge``, ``gt``, ``le``, ``lt`` as for ``pydantic.Field``.
    """
    return float | None, Field(None, description=description, allow_inf_nan=False, **bounds)


def passed(rows: Sequence[GateRow]) -> bool:
    """Return whether nothing failed, and nothing that is required was left open."""
    return not any(row.blocks for row in rows)


def verdict_on(
    limit: float, value: float, low: float | None, high: float | None, *, upper: bool
) -> tuple[Verdict, str]:
    """Return the verdict on a number and its reason in words; a number exactly at the limit is inside it.

    The limit is the largest allowed value with ``upper``, else the smallest. The value is judged alone where there is
    no interval.
    """
    low, high = value if low is None else low, value if high is None else high
    sign = 1 if upper else -1
    best, worst = sorted((sign * low, sign * high))
    what = "the value" if low == high else "the whole interval"
    if worst <= sign * limit:
        return "pass", f"{what} is within the limit"
    if best > sign * limit:
        return "fail", f"{what} is beyond the limit"
    return "inconclusive", "the limit lies inside the interval: more images or more time would tell"
