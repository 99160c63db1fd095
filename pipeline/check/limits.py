"""The limits of `compress check`: each is one gate on how an artifact changed since the baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from vitcompress.core.artifact_records import arithmetic_of
from vitcompress.core.measured_records import GateRow
from vitcompress.core.words import counted
from vitcompress.exporters.latency import change_interval
from vitcompress.pipeline.check.baseline import Baseline, Measured, teacher_name
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.differences import machine
from vitcompress.stages.gates.gate import Gate, Measurement, Verdict, verdict_on
from vitcompress.stages.gates.names import ROLES, Chosen, chosen, parts_of
from vitcompress.stages.judging.accuracy import Z95, paired_drop

CONFIDENCE = 0.98
"""Of the intervals that the limits are tested against: a change that is exactly at its limit is taken for one beyond it
once in a hundred times."""
SESSIONS = 2
"""Fewest on each side from which a change has an interval."""
DISTURBED = 0.15
"""Share of the CPUs' time, taken by other processes, from which a measurement counts as disturbed."""
MARGIN = 3.0
"""Points by which a disturbed slowdown must lie beyond its limit to be called one. A busy neighbour moves the ratio of
two models by 1 to 4 % and no interval knows it (docs/check.md)."""


@dataclass(frozen=True)
class Change:
    """One artifact in the baseline and in the run."""

    name: str
    old: Measured
    new: Measured
    before: Baseline
    now: Baseline


class TimeLimit(Gate[Change]):
    """A limit on a latency, which other processes can have disturbed, or a GPU that slowed down."""

    def test(self, limit: float, value: float, found: Measurement, subject: Change) -> tuple[Verdict, str]:
        """Return the verdict and its reason."""
        for side, measured in (("this run", subject.new), ("the baseline", subject.old)):
            if measured.disturbed:
                return "inconclusive", f"in {side} {measured.disturbed}: measure again on a cool GPU of its own"
        share = max(subject.before.disturbance or 0.0, subject.now.disturbance or 0.0)
        return latency_verdict(limit, value, found.low, found.high, share)


def latency_verdict(
    limit: float, value: float, low: float | None, high: float | None, share: float
) -> tuple[Verdict, str]:
    """Return the verdict on percent of latency lost, with its interval, and the reason.

    ``share`` is that of the CPUs' time that others took, in the more disturbed of the two measurements.
    """
    verdict, why = verdict_on(limit, value, low, high, upper=True)
    beyond = (value if low is None else low) - limit
    if verdict == "fail" and share >= DISTURBED and beyond <= MARGIN:
        return "inconclusive", (
            f"beyond the limit, but other processes took {share:.0%} of the CPUs' time meanwhile, which alone can look "
            f"like this: measure again on an idle machine"
        )
    return verdict, why


def _accuracy(change: Change) -> Measurement:
    """Measure points of the score lost: paired image by image, or by both intervals where it is no share of images."""
    if change.old.ends and change.new.ends:
        return _apart((change.old.top1 or 0.0, *change.old.ends), (change.new.top1 or 0.0, *change.new.ends))
    count = change.before.images.count
    old, new = change.old.answers(count), change.new.answers(count)
    if old is None or new is None:
        side = "this run" if new is None else "the baseline"
        return Measurement(None, reason=f"{side} has no answers of {change.name}")
    if bool(np.array_equal(old, new)):
        return Measurement(0.0, reason=f"each of {count} images is right or wrong as it was")
    return Measurement(*paired_drop(old, new, CONFIDENCE))


def _apart(old: tuple[float, float, float], new: tuple[float, float, float]) -> Measurement:
    """Return a difference by both numbers' 95 % intervals (Newcombe 1998, method 10): wide, as if of other images."""
    (was, was_low, was_high), (now, now_low, now_high) = old, new
    wider = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) / Z95
    below, above = math.hypot(was - was_low, now_high - now), math.hypot(was_high - was, now - now_low)
    return Measurement(was - now, was - now - wider * below, was - now + wider * above)


def _slowdown(change: Change) -> Measurement:
    """Measure percent by which the latency at batch 1, relative to the teacher's in the same run, grew."""
    runtime, precision = parts_of(change.name)
    own = teacher_name(runtime, arithmetic_of(precision))
    both = own in change.before.teacher and own in change.now.teacher
    return _grown(change, own if both or runtime != "onnx" else runtime)


def _latency(change: Change) -> Measurement:
    """Measure percent by which the latency at batch 1 itself grew, where the hardware is that of the baseline."""
    if _elsewhere(change.before, change.now):
        was, here = machine(change.before.hardware), machine(change.now.hardware)
        reason = f"the baseline was measured on {was}, this run on {here}: latencies of two machines are not compared"
        return Measurement(None, reason=reason)
    return _grown(change, None)


def _elsewhere(before: Baseline, now: Baseline) -> bool:
    return before.hardware is None or before.hardware != now.hardware


def _grown(change: Change, reference: str | None) -> Measurement:
    """Measure percent by which a latency grew: the artifact's alone, or relative to the teacher's ``reference``."""
    old, new = change.old.provider, change.new.provider
    if old != new:
        reason = f"the baseline was measured with {old or 'no provider'}, this run with {new or 'none'}"
        return Measurement(None, reason=f"{reason}: how much faster than the teacher a model is depends on that")
    logs = []
    for side, whole, own in (("the baseline", change.before, change.old), ("this run", change.now, change.new)):
        teacher = whole.teacher.get(reference) if reference else None
        times, of_teacher = (np.array(one.session_p50_ms.get("1", ()) if one else ()) for one in (own, teacher))
        if times.size < SESSIONS or (reference and times.size != of_teacher.size):
            counts = f"{counted(times.size, 'timing session')} of {change.name} and {of_teacher.size} of its teacher"
            return Measurement(None, reason=f"{side} has {counts}; {SESSIONS} are the fewest, as many of both")
        logs.append(np.log((of_teacher if reference else 1.0) / times))
    ratio, low, high = change_interval(logs[0], logs[1], CONFIDENCE)
    return Measurement(100 * (ratio - 1), 100 * (low - 1), 100 * (high - 1))


def _size(change: Change) -> Measurement:
    """Measure percent by which the files grew."""
    old, new = change.old.bytes, change.new.bytes
    if old is None or new is None:
        return Measurement(None, reason=f"{'the baseline' if old is None else 'this run'} has no size of {change.name}")
    return Measurement(100 * (new / old - 1), reason=f"{old} bytes before, {new} now")


LIMITS: dict[str, Gate[Change]] = {
    one.field: one
    for one in (
        Gate(field="max_accuracy_loss", label="loss of top-1", unit="points", measure=_accuracy),
        TimeLimit(
            field="max_slowdown",
            label="slowdown since the baseline, relative to the teacher",
            unit="%",
            measure=_slowdown,
        ),
        TimeLimit(field="max_latency_growth", label="growth of the latency", unit="%", measure=_latency),
        Gate(field="max_growth", label="growth on disk", unit="%", measure=_size),
    )
}
"""By the names of their settings."""


def compare(config: CheckConfig, before: Baseline, now: Baseline) -> tuple[tuple[GateRow, ...], list[str]]:
    """Return rows by artifact, then by limit, and what has no row: artifacts that neither side measured.

    Of a role the artifact that was recommended then is compared, and the one that is now. Where a role is required, the
    baseline's is: what it promised is what a run must not lose. The two are of the same networks and images
    (``differences.foreign`` is empty).
    """
    filled = {
        role: list(dict.fromkeys(name for name in (before.recommended.get(role), now.recommended.get(role)) if name))
        for role in ROLES
    }
    rows, left_out = [], []
    for one in chosen(config, filled, list(dict.fromkeys((*before.artifacts, *now.artifacts)))):
        subject = _subject(one, before, now)
        if subject is None:
            if one.name:
                left_out.append(f"{one.label} was measured neither in the baseline nor in this run.")
            continue
        for name, gate in LIMITS.items():
            if (limit := getattr(config, name)) is not None:
                # Else whoever gets another machine from the CI service would be told of a regression.
                required = one.required and not (name == "max_latency_growth" and _elsewhere(before, now))
                conclusive = config.require_conclusive
                rows.append(gate.row(one.label, limit, subject, required=required, require_conclusive=conclusive))
    return tuple(rows), left_out


def _subject(one: Chosen, before: Baseline, now: Baseline) -> Change | str | None:
    """Return what is compared, or why it cannot be; None for what neither side measured and nobody requires."""
    name = one.name or one.label
    old, new = before.artifacts.get(name), now.artifacts.get(name)
    if old and new:
        return Change(name, old, new, before, now)
    if new:
        return f"the baseline has no {name}; `compress check RUN --update` adds it"
    if old:
        return f"this run has no measurement of {name}, which the baseline has"
    return f"{name} was measured neither in the baseline nor in this run" if one.required else None
