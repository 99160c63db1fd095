"""Which runs are worth having: those that no other beats in top-1 without being slower, or in speed without losing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitcompress.pipeline.compare.read import Comparison, Run

WORDS = {"p50_ms": "latency", "speedup": "speed-up"}
"""What the measures of ``Comparison.time`` are called."""


@dataclass(frozen=True)
class Standing:
    """Where one run stands among the others, by measured values."""

    run: Run
    by: tuple[int, ...] = ()
    """Numbers of the runs that dominate it: none is worse in top-1 or speed, and each is better in one of them."""
    overlapping: tuple[str, ...] = ()
    """Of ``top-1`` and the measure of time, those whose 95 % interval overlaps the first dominating run's."""
    unplaced: str = ""
    """Why it cannot be placed; it then neither dominates nor is dominated."""

    @property
    def optimal(self) -> bool:
        """Whether it is on the Pareto front."""
        return not self.by and not self.unplaced


def standings(comparison: Comparison) -> tuple[Standing, ...]:
    """One a run, in their order; empty when ``comparison.undecided``."""
    if comparison.undecided:
        return ()
    key = comparison.time
    assert key is not None  # noqa: S101 - else it is undecided
    placed = [run for run in comparison.runs if not _unplaced(run, key)]
    found = []
    for run in comparison.runs:
        if why := _unplaced(run, key):
            found.append(Standing(run, unplaced=why))
            continue
        better = [other for other in placed if _dominates(other, run, key)]
        better.sort(key=lambda other: (-other.top1["value"], -_speed(other, key)))
        overlapping = _overlapping(better[0], run, key) if better else ()
        found.append(Standing(run, tuple(other.number for other in better), overlapping))
    return tuple(found)


def _unplaced(run: Run, key: str) -> str:
    quantities = {"top-1": run.top1, WORDS[key]: getattr(run, key)}
    return "; ".join(f"{name} unmeasured: {one['reason']}" for name, one in quantities.items() if one["value"] is None)


def _speed(run: Run, key: str) -> float:
    """Greater is faster."""
    value: float = getattr(run, key)["value"]
    return -value if key == "p50_ms" else value


def _dominates(one: Run, other: Run, key: str) -> bool:
    ours, theirs = ((run.top1["value"], _speed(run, key)) for run in (one, other))
    return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]


def _overlapping(one: Run, other: Run, key: str) -> tuple[str, ...]:
    pairs = {"top-1": (one.top1, other.top1), WORDS[key]: (getattr(one, key), getattr(other, key))}
    return tuple(name for name, (first, second) in pairs.items() if _overlap(first, second))


def _overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two intervals have a number in common; one that is unknown is taken for its value alone."""
    (low, high), (their_low, their_high) = (
        (one["value"], one["value"]) if one["low"] is None else (one["low"], one["high"]) for one in (first, second)
    )
    return bool(low <= their_high and their_low <= high)
