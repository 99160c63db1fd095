"""Conversions measured, and the search for what must stay in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.compare import Deviation, deviation, logits_of
from vitcompress.exporters.precision.graph import SourceGraph
from vitcompress.exporters.precision.limits import Limits
from vitcompress.exporters.precision.recipes import ROUNDED, RUN_HERE, Recipe
from vitcompress.exporters.precision.simulate import simulated


@dataclass(frozen=True)
class Trial:
    """A reduced graph, and how far it is from fp32."""

    kept: frozenset[str]
    """Nodes left in fp32."""
    model: Any
    """The ``ModelProto``."""
    deviation: Deviation | None
    """None when it could not be measured."""
    measured: str
    """How it was measured, or why not."""

    def within(self, limits: Limits) -> bool:
        """Return whether the limits are met; a graph that cannot be measured here meets them."""
        return self.deviation is None or limits.met_by(self.deviation)

    def __str__(self) -> str:
        if self.deviation is None:
            return self.measured
        return (
            f"{self.deviation.relative:.2g} of the logits' spread from fp32, "
            f"{self.deviation.agreement:.1%} the same top-1"
        )


def tried(recipe: Recipe, kept: frozenset[str], checked: NDArray[Any], expected: NDArray[np.float32]) -> Trial:
    """Make the graph with ``kept`` in fp32, and compare its logits of ``checked`` with ``expected``, those of fp32.

    Raises:
        ResultError: a graph that ONNX Runtime must run does not run.
    """
    converted, precision = recipe.convert(kept), recipe.precision
    rounded = f"each operator in fp32 and its result rounded to {precision}, in ONNX Runtime"
    how = rounded if precision in ROUNDED else "in ONNX Runtime, operator by operator"
    try:
        model = simulated(converted) if precision in ROUNDED else converted
        logits = logits_of(model, checked, optimised=False)
    except ResultError as error:
        if precision in RUN_HERE:
            raise
        return Trial(kept, converted, None, f"not measured: {error}")
    return Trial(kept, converted, deviation(logits, expected), how)


def search(
    source: SourceGraph,
    recipe: Recipe,
    checked: NDArray[Any],
    expected: NDArray[np.float32],
    limits: Limits,
    say: Callable[[str], None],
) -> tuple[Trial, int]:
    """Return a graph within the limits, and how many were made.

    Nothing stays in fp32 where the limits are met without. Else every part of the network (``SourceGraph.parts``)
    begins in fp32, and each in turn is reduced, and stays so if the limits are still met.

    Raises:
        ResultError: no part can be reduced.
    """
    first = tried(recipe, frozenset(), checked, expected)
    say(f"{recipe.precision}: {first}")
    if first.within(limits):
        return first, 1
    say(f"{recipe.precision} misses its limits; looking for the parts to leave in fp32")
    best, kept, count = None, frozenset(recipe.candidates), 1
    for part in source.parts():
        if not kept & part:
            continue
        trial, count = tried(recipe, kept - part, checked, expected), count + 1
        if trial.within(limits):
            best, kept = trial, trial.kept
    if best is None:
        raise ResultError(
            f"{recipe.precision} cannot be made of this network: {first}, where {limits.difference:g} and "
            f"{limits.agreement:.1%} are the limits, and no part of it takes this precision. Leave it out."
        )
    say(f"{recipe.precision}: {len(kept)} of {len(recipe.candidates)} nodes left in fp32: {best}")
    return best, count
