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
    placed = [run for run in comparison.runs if not _lacking(run)]
    found = []
    for run in comparison.runs:
        if lacking := _lacking(run):
            found.append(Standing(run, unplaced=lacking))
            continue
        better = [one for one in placed if _dominates(one, run)]
        better.sort(key=_score, reverse=True)
        pairs = {"top-1": (better[0].top1, run.top1), "latency": (better[0].p50_ms, run.p50_ms)} if better else {}
        overlapping = tuple(name for name, pair in pairs.items() if _overlap(*pair))
        found.append(Standing(run, tuple(one.number for one in better), overlapping))
    return tuple(found)


def _lacking(run: Run) -> str:
    """Return why a run has no place; empty when both numbers were measured."""
    both = {"top-1": run.top1, "latency": run.p50_ms}
    return "; ".join(f"{name} unmeasured: {one['reason']}" for name, one in both.items() if one["value"] is None)


def _score(run: Run) -> tuple[float, float]:
    """Return top-1 and speed; more is better."""
    return run.top1["value"], -run.p50_ms["value"]


def _dominates(one: Run, other: Run) -> bool:
    (top1, speed), (its_top1, its_speed) = _score(one), _score(other)
    return _score(one) != _score(other) and top1 >= its_top1 and speed >= its_speed


def _overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether two intervals have a number in common; one that is unknown is taken for its value alone."""
    (low, high), (their_low, their_high) = (
        (one["value"], one["value"]) if one["low"] is None else (one["low"], one["high"]) for one in (first, second)
    )
    return bool(low <= their_high and their_low <= high)
