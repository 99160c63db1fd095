"""Which runs are worth having: those that no other beats in top-1 without being slower, or in speed without losing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitcompress.pipeline.compare.read import Comparison, Run


@dataclass(frozen=True)
class Standing:
    """Where one run stands among the others, by measured values."""

    run: Run
    by: tuple[int, ...] = ()
    """Numbers of the runs that dominate it: none is worse in top-1 or speed, and each is better in one of them."""
    overlapping: tuple[str, ...] = ()
    """Of ``top-1`` and ``latency``, those whose 95 % interval overlaps the first dominating run's."""
    unplaced: str = ""
    """Why it cannot be placed; it then neither dominates nor is dominated."""

    @property
    def optimal(self) -> bool:
        """Whether it is on the Pareto front."""
        return not self.by and not self.unplaced


def standings(comparison: Comparison) -> tuple[Standing, ...]:
    """Return one standing a run, in their order; all are unplaced when ``comparison.undecided``."""
    if comparison.undecided:
        return tuple(Standing(run, unplaced=comparison.undecided) for run in comparison.runs)
    measures = {run.number: {"top-1": run.top1, "latency": run.p50_ms} for run in comparison.runs}
    lacking = {
        number: "; ".join(f"{name} unmeasured: {one['reason']}" for name, one in own.items() if one["value"] is None)
        for number, own in measures.items()
    }
    scores = {
        number: (own["top-1"]["value"], -own["latency"]["value"])
        for number, own in measures.items()
        if not lacking[number]
    }
    found = []
    for run in comparison.runs:
        if lacking[run.number]:
            found.append(Standing(run, unplaced=lacking[run.number]))
            continue
        top1, speed = own = scores[run.number]
        better = [one for one, other in scores.items() if other != own and other[0] >= top1 and other[1] >= speed]
        better.sort(key=lambda one: scores[one], reverse=True)
        first = measures[better[0]] if better else {}
        overlapping = tuple(name for name, one in first.items() if _overlap(one, measures[run.number][name]))
        found.append(Standing(run, tuple(better), overlapping))
    return tuple(found)


def _overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether two intervals have a number in common; one that is unknown is taken for its value alone."""
    (low, high), (their_low, their_high) = (
        (one["value"], one["value"]) if one["low"] is None else (one["low"], one["high"]) for one in (first, second)
    )
    return bool(low <= their_high and their_low <= high)
