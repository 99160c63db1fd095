"""The limits of `compress check`: each is one gate on how an artifact changed since the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitcompress.core.artifact_records import Runtime
from vitcompress.exporters.latency import change_interval
from vitcompress.pipeline.check.baseline import Baseline, Measured
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.same import DISTURBED, MARGIN, machine
from vitcompress.stages.gates.gate import Gate, Measurement, Verdict, verdict_on
from vitcompress.stages.gates.names import parts_of
from vitcompress.stages.training.accuracy import paired_drop

SESSIONS = 2
"""Fewest on each side from which a change has an interval."""
NO_TEACHER = (
    "no engine is built of the teacher, so an engine's latency is relative to nothing; check.max_latency_growth limits "
    "the latency itself, on the hardware of the baseline"
)


@dataclass(frozen=True)
class Change:
    """One artifact in the baseline and in the run."""

    name: str
    old: Measured
    new: Measured
    before: Baseline
    now: Baseline
    config: CheckConfig

    def sides(self) -> Iterator[tuple[str, Baseline, Measured]]:
        """Yield both sides, each with what a reader calls it."""
        yield "the baseline", self.before, self.old
        yield "this run", self.now, self.new


@dataclass(frozen=True, eq=False, kw_only=True)
class Limit(Gate[Change]):
    """A limit on percent or points by which an artifact became worse."""

    cause: str
    """What a failed row says after its number and unit."""
    upper: bool = True


class TimeLimit(Limit):
    """A limit on a latency, which other processes can have disturbed."""

    def test(self, limit: float, found: Measurement, subject: Change) -> tuple[Verdict, str]:
        """Return the verdict and its reason."""
        assert found.value is not None  # noqa: S101 - ``row`` tests nothing else
        share = max(subject.before.disturbance or 0.0, subject.now.disturbance or 0.0)
        return latency_verdict(limit, found.value, found.low, found.high, share)


def latency_verdict(
    limit: float, value: float, low: float | None, high: float | None, share: float
) -> tuple[Verdict, str]:
    """Return the verdict on percent of latency lost, and its reason.

    Args:
        limit: the largest allowed, percent.
        value: percent.
        low: lower end of its interval.
        high: upper end of its interval.
        share: of the CPUs' time that others took, in the more disturbed of the two measurements.
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
    """Measure points of top-1 lost, paired image by image."""
    count = change.before.images.count
    old, new = change.old.answers(count), change.new.answers(count)
    if old is None or new is None:
        return Measurement(
            None, reason=f"{'this run' if new is None else 'the baseline'} has no answers of {change.name}"
        )
    if bool(np.array_equal(old, new)):
        return Measurement(0.0, reason=f"each of {count} images is right or wrong as it was")
    return Measurement(*paired_drop(old, new, change.config.confidence))


def _slowdown(change: Change) -> Measurement:
    """Measure percent by which the latency relative to the teacher's grew."""
    runtime = parts_of(change.name)[0]
    if runtime != "onnx":
        return Measurement(None, reason=NO_TEACHER)
    return _grown(change, runtime)


def _latency(change: Change) -> Measurement:
    """Measure percent by which the latency itself grew, where the hardware is that of the baseline."""
    before, now = change.before.hardware, change.now.hardware
    if before is None or before != now:
        return Measurement(
            None,
            reason=f"the baseline was measured on {machine(before)}, this run on {machine(now)}: "
            "latencies of two machines are not compared, only their ratio to the teacher's",
            owed=False,  # else whoever gets another machine from the CI service would be told of a regression
        )
    return _grown(change, None)


def _grown(change: Change, runtime: Runtime | None) -> Measurement:
    """Measure percent by which a latency grew: the artifact's alone, or in ``runtime`` relative to the teacher's."""
    if change.old.provider != change.new.provider:
        return Measurement(
            None,
            reason=f"the baseline was measured with {change.old.provider or 'no provider'}, this run with "
            f"{change.new.provider or 'none'}: times of the two are not compared, nor how much faster than the teacher "
            "a model is",
        )
    logs = []
    for whose, side, own in change.sides():
        models: dict[str, Measured | None] = {change.name: own}
        if runtime:
            models[f"the teacher in {runtime}"] = side.teacher.get(runtime)
        times = []
        for what, one in models.items():
            known = one.session_p50_ms if one else {}
            if str(change.config.batch) not in known:
                only = f" (only at {', '.join(known)})" if known else ""
                return Measurement(None, reason=f"{whose} has no times of {what} at batch {change.config.batch}{only}")
            times.append(np.asarray(known[str(change.config.batch)], dtype=np.float64))
        if runtime and times[0].size != times[1].size:
            counts = f"{times[0].size} sessions of {change.name} and {times[1].size} of its teacher"
            return Measurement(None, reason=f"{whose} has {counts}")
        logs.append(np.log(times[1] / times[0]) if runtime else -np.log(times[0]))
    if min(logs[0].size, logs[1].size) < SESSIONS:
        counts = f"{logs[0].size} and {logs[1].size} sessions were timed"
        return Measurement(None, reason=f"{counts}; {SESSIONS} on each side are the fewest")
    try:
        ratio, low, high = change_interval(logs[0], logs[1], change.config.confidence)
    except OverflowError:  # few sessions, far apart, and a high confidence
        return Measurement(
            None,
            reason="the sessions differ so much that no number ends their interval at a confidence of "
            f"{change.config.confidence:g}; measure again, for longer (verify.latency_seconds)",
        )
    return Measurement(100 * (ratio - 1), 100 * (low - 1), 100 * (high - 1))


def _size(change: Change) -> Measurement:
    """Measure percent by which the files grew."""
    old, new = change.old.bytes, change.new.bytes
    if old is None or new is None:
        return Measurement(None, reason=f"{'the baseline' if old is None else 'this run'} has no size of {change.name}")
    return Measurement(100 * (new / old - 1), reason=f"{old} bytes before, {new} now")


LIMITS: dict[str, Limit] = {
    one.field: one
    for one in (
        Limit(
            field="max_accuracy_loss",
            label="accuracy loss",
            unit="points",
            cause="of top-1 lost against the baseline, on the same images",
            measure=_accuracy,
        ),
        TimeLimit(
            field="max_slowdown",
            label="slowdown",
            unit="%",
            cause="slower against the teacher than the baseline",
            measure=_slowdown,
        ),
        TimeLimit(
            field="max_latency_growth",
            label="latency growth",
            unit="%",
            cause="slower than the baseline, on the same hardware",
            measure=_latency,
        ),
        Limit(
            field="max_growth",
            label="growth on disk",
            unit="%",
            cause="larger on disk than the baseline",
            measure=_size,
        ),
    )
}
"""By the names of their settings."""
