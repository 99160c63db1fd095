"""Which artifacts of a baseline and a run are compared with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vitcompress.pipeline.check.baseline import Baseline, Measured
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.stages.gates.names import ALL, NAMES, ROLES, label_of


@dataclass(frozen=True)
class Pair:
    """One artifact then and now."""

    label: str
    name: str
    required: bool
    before: Measured | None
    now: Measured | None

    @property
    def never_measured(self) -> bool:
        """Whether there is nothing of the artifact on either side, and nobody requires it."""
        return self.before is None and self.now is None and not self.required


def pairs(config: CheckConfig, before: Baseline, now: Baseline) -> Iterator[Pair]:
    """The artifacts to compare, like with like: of a role the one that was recommended then, and the one that is now.

    A role that nothing fills on either side has no pair, unless it is required: then it is named as it was asked for.
    """
    seen = set()
    for given in _named(config, before, now):
        # The baseline's first: what it promised is what a run must not lose.
        filled = [before.recommended.get(given), now.recommended.get(given)] if given in ROLES else [given]  # type: ignore[call-overload]
        names = list(dict.fromkeys(name for name in filled if name is not None))
        if not names and given in config.require:
            yield Pair(given, given, required=True, before=None, now=None)
        for place, name in enumerate(names):
            if name in seen:
                continue
            seen.add(name)
            label = label_of(given, name) if given in ROLES else name
            required = name in config.require or (given in config.require and place == 0)
            yield Pair(label, name, required, before.artifacts.get(name), now.artifacts.get(name))


def _named(config: CheckConfig, before: Baseline, now: Baseline) -> list[str]:
    """Roles and names to compare, roles first, for they are what a reader knows an artifact by."""
    named = [*config.artifacts, *config.require]
    if ALL in named:
        named += [name for name in NAMES if name in before.artifacts or name in now.artifacts]
    return sorted(dict.fromkeys(name for name in named if name != ALL), key=lambda name: name not in ROLES)
