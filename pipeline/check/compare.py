"""Compare a run with its baseline: one row a limit and artifact, judged on the interval like a gate."""

from __future__ import annotations

from vitcompress.core.artifact_records import GateRow
from vitcompress.pipeline.check.baseline import Baseline
from vitcompress.pipeline.check.changes import Change, changes
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.disturbed import disturbance, latency_verdict
from vitcompress.pipeline.check.pairs import Pair, pairs
from vitcompress.stages.gates.judge import Verdict, verdict_on


def compare(config: CheckConfig, before: Baseline, now: Baseline) -> tuple[GateRow, ...]:
    """Rows by artifact, then by limit; the limits that are None are not judged.

    Args:
        config: the limits.
        before: the baseline, of the same networks and images (``same.foreign`` is empty).
        now: the run.
    """
    rows = []
    for pair in pairs(config, before, now):
        if not pair.never_measured:
            found = changes(config, pair, before, now)
            rows += [_row(config, pair, limit, change, disturbance(before, now)) for limit, change in found]
    return tuple(rows)


def uncompared(config: CheckConfig, before: Baseline, now: Baseline) -> list[str]:
    """What has no rows: artifacts that nobody ever measured, such as an engine where there is no GPU."""
    left = [pair.label for pair in pairs(config, before, now) if pair.never_measured]
    return [f"{label} was measured neither in the baseline nor in this run, so it is not compared." for label in left]


def _row(config: CheckConfig, pair: Pair, limit: str, change: Change, share: float) -> GateRow:
    allowed = float(getattr(config, limit))
    verdict: Verdict = "unmeasured"
    why = change.why
    if change.value is not None:
        on_time = limit in ("max_slowdown", "max_latency_growth")
        measured = (allowed, change.value, change.low, change.high)
        verdict, why = latency_verdict(*measured, share) if on_time else verdict_on(*measured, upper=True)
        why = change.why or why
    return GateRow(
        gate=limit,
        artifact=pair.label,
        limit=allowed,
        value=change.value,
        low=change.low,
        high=change.high,
        verdict=verdict,
        required=pair.required and change.owed and (verdict != "inconclusive" or config.require_conclusive),
        why=why,
    )
