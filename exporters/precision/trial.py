"""Conversions tried and measured, and the search for what must stay in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.compare import Deviation, deviation, logits_of
from vitcompress.exporters.precision.graph import PRODUCTS, SourceGraph, blocks_of
from vitcompress.exporters.precision.limits import Limits
from vitcompress.exporters.precision.recipes import Recipe
from vitcompress.exporters.precision.search import nodes_to_keep
from vitcompress.exporters.precision.simulate import simulated


class Trial:
    """Makes and measures graphs, counts them, and remembers the one within the limits that keeps least in fp32."""

    def __init__(self, source: SourceGraph, recipe: Recipe, checked: NDArray[Any], limits: Limits) -> None:
        self.count = 0
        self.kept: frozenset[str] = frozenset()
        self.converted: Any = None
        """What ``kept`` gave; None while nothing was within the limits."""
        self.deviation: Deviation | None = None
        """How far ``converted`` is from fp32; None when that could not be measured."""
        self.measured = ""
        """How, or why not."""
        self._recipe, self._checked, self._limits = recipe, checked, limits
        self._expected = logits_of(source.model, checked, optimised=True)

    def measure(self, kept: frozenset[str]) -> tuple[Any, Deviation | None]:
        """Return the graph with ``kept`` in fp32, and how far it is from fp32.

        Raises:
            ResultError: a graph that ONNX Runtime must run does not run.
        """
        self.count += 1
        converted = self._recipe.convert(kept)
        precision = self._recipe.precision
        rounded = f"each operator in fp32 and its result rounded to {precision}, in ONNX Runtime"
        self.measured = rounded if self._recipe.simulate else "in ONNX Runtime, operator by operator"
        try:
            model = simulated(converted) if self._recipe.simulate else converted
            logits = logits_of(model, self._checked, optimised=False)
        except ResultError as error:
            if self._recipe.must_run:
                raise
            self.measured = f"not measured: {error}"
            return converted, None
        return converted, deviation(logits, self._expected)

    def works(self, kept: frozenset[str]) -> bool:
        """Return whether the graph with ``kept`` in fp32 is within the limits; no, untried, when enough were tried."""
        if self.count >= self._limits.conversions:
            return False
        converted, found = self.measure(kept)
        within = found is None or self._limits.met_by(found)
        if within and (self.converted is None or len(kept) < len(self.kept)):
            self.kept, self.converted, self.deviation = kept, converted, found
        return within

    def as_run(self) -> float | None:
        """Return ``relative`` of the file in ONNX Runtime with its optimisations; None where it cannot run it."""
        try:
            logits = logits_of(self.converted, self._checked, optimised=True)
        except ResultError:
            if self._recipe.must_run:
                raise
            return None
        return deviation(logits, self._expected).relative


def search(source: SourceGraph, recipe: Recipe, trial: Trial, limits: Limits, say: Callable[[str], None]) -> None:
    """Bring ``trial`` to a graph within the limits that leaves as little in fp32 as was found.

    Raises:
        ResultError: there is none.
    """
    first, found = trial.measure(frozenset())
    if found is None or limits.met_by(found):
        trial.converted, trial.deviation = first, found
        say(f"{recipe.precision}: {trial.measured}" if found is None else f"{recipe.precision}: {_words(found)}")
        return
    say(f"{recipe.precision} misses its limits ({_words(found)}); looking for the nodes to leave in fp32")
    blocks = blocks_of(source)
    operators = {node.name: node.op_type for node in source.nodes}
    kept = frozenset(nodes_to_keep(recipe.candidates, blocks, operators, trial.works))
    reducible = {name for name in recipe.candidates if operators[name] in PRODUCTS}
    if reducible <= kept or (trial.converted is None and not trial.works(kept)):
        raise ResultError(
            f"{recipe.precision} cannot be made of this network: {_words(found)}, where {limits.difference:g} and "
            f"{limits.agreement:.1%} are the limits, and after {trial.count} conversions no block could be found that "
            "takes it. Leave this precision out, or loosen its limits."
        )
    # The union of what was found need not have been tried itself; where it fails, the smallest set tried stands.
    if kept != trial.kept:
        trial.works(kept)
    say(
        f"{recipe.precision}: {len(trial.kept)} of {len(recipe.candidates)} nodes left in fp32 "
        f"({', '.join(sorted({blocks[name] for name in trial.kept}))}) after {trial.count} conversions"
        + (f": {_words(trial.deviation)}" if trial.deviation else "")
    )


def _words(found: Deviation) -> str:
    return f"{found.relative:.2g} of the logits' spread from fp32, {found.agreement:.1%} the same top-1"
