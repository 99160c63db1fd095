"""Compare a run with its baseline: one row a limit and artifact, judged on the interval like a gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vitcompress.core.artifact_records import GateRow
from vitcompress.pipeline.check.baseline import Baseline, Measured
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.limits import LIMITS, Change
from vitcompress.stages.gates.names import ALL, ROLES, artifact_names, label_of


@dataclass(frozen=True)
class Pair:
    """One artifact in the baseline and in the run."""

    label: str
    name: str
    required: bool
    old: Measured | None
    new: Measured | None

    @property
    def never_measured(self) -> bool:
        """Whether there is nothing of the artifact on either side, and nobody requires it."""
        return self.old is None and self.new is None and not self.required


def compare(config: CheckConfig, before: Baseline, now: Baseline) -> tuple[GateRow, ...]:
    """Return rows by artifact, then by limit; the limits that are None are not judged.

    Args:
        config: the limits.
        before: the baseline, of the same networks and images (``same.foreign`` is empty).
        now: the run.
    """
    rows = []
    for pair in pairs(config, before, now):
        if pair.never_measured:
            continue
        subject = _lacking(pair) or Change(pair.name, pair.old, pair.new, before, now, config)  # type: ignore[arg-type]
        for name, gate in LIMITS.items():
            if (limit := getattr(config, name)) is not None:
                conclusive = config.require_conclusive
                rows.append(gate.row(pair.label, limit, subject, required=pair.required, require_conclusive=conclusive))
    return tuple(row for row in rows if row is not None)


def uncompared(config: CheckConfig, before: Baseline, now: Baseline) -> list[str]:
    """Tell what has no rows: artifacts that nobody ever measured, such as an engine where there is no GPU."""
    left = [pair.label for pair in pairs(config, before, now) if pair.never_measured]
    return [f"{label} was measured neither in the baseline nor in this run, so it is not compared." for label in left]


def pairs(config: CheckConfig, before: Baseline, now: Baseline) -> Iterator[Pair]:
    """Yield the artifacts to compare; of a role the one that was recommended then, and the one that is now.

    A role that nothing fills on either side has no pair, unless it is required: then it is named as it was asked for.
    """
    named = [*config.artifacts, *config.require]
    if ALL in named:
        named += [
            name
            for name in artifact_names((*before.artifacts, *now.artifacts))
            if name in before.artifacts or name in now.artifacts
        ]
    # Roles first, for they are what a reader knows an artifact by.
    order = sorted(dict.fromkeys(name for name in named if name != ALL), key=lambda name: name not in ROLES)
    seen = set()
    for given in order:
        # The baseline's first: what it promised is what a run must not lose.
        filled = [before.role(given), now.role(given)] if given in ROLES else [given]
        names = list(dict.fromkeys(name for name in filled if name is not None))
        if not names and given in config.require:
            yield Pair(given, given, required=True, old=None, new=None)
        for place, name in enumerate(names):
            if name not in seen:
                seen.add(name)
                label = label_of(given, name) if given in ROLES else name
                required = name in config.require or (given in config.require and place == 0)
                yield Pair(label, name, required, before.artifacts.get(name), now.artifacts.get(name))


def _lacking(pair: Pair) -> str:
    """Return why an artifact cannot be compared at all; empty when it can."""
    if pair.old is None and pair.new is None:
        return f"{pair.name} was measured neither in the baseline nor in this run"
    if pair.new is None:
        return f"this run has no measurement of {pair.name}, which the baseline has"
    return "" if pair.old else f"the baseline has no {pair.name}; `compress check RUN --update` adds it"
