"""The verdict on a latency that was taken while other processes kept the machine busy."""

from __future__ import annotations

from vitcompress.pipeline.check.baseline import Baseline
from vitcompress.stages.gates.judge import Verdict, verdict_on

DISTURBED = 0.15
"""Share of the CPUs' time, taken by others, from which a measurement counts as disturbed."""
MARGIN = 3.0
"""Points by which a disturbed slowdown must lie beyond its limit to be called one. A busy neighbour moves the ratio of
two models by 1 to 4 % and no interval knows it (docs/gates.md)."""


def disturbance(before: Baseline, now: Baseline) -> float:
    """The larger share of the two measurements; what is unknown counts as none."""
    return max(before.disturbance or 0.0, now.disturbance or 0.0)


def latency_verdict(
    limit: float, value: float, low: float | None, high: float | None, share: float
) -> tuple[Verdict, str]:
    """The verdict on percent of latency lost, and its reason.

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
