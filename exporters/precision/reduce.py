"""A reduced-precision ONNX graph of an fp32 one: converted, measured against it, mended where needed, and audited."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.artifact_records import OperatorDtypes, Precision, Reduction
from vitcompress.core.errors import ResultError
from vitcompress.core.files import write_atomic
from vitcompress.exporters.precision.audit import audit_of, check_audit, unreduced_products
from vitcompress.exporters.precision.compare import Limits, deviation, logits_of
from vitcompress.exporters.precision.graph import SourceGraph, inferred, load_source, one_line
from vitcompress.exporters.precision.recipes import CALIBRATED, RUN_HERE, Recipe, recipe_for
from vitcompress.exporters.precision.trial import Trial, search


@dataclass(frozen=True)
class ReducedFacts:
    """What was written."""

    how: Reduction
    nodes: int
    bytes: int
    seconds: float
    """Wall time of everything: calibration, every conversion tried, measuring, checking."""
    audit: OperatorDtypes


def reduced_from_onnx(
    source: Path,
    target: Path,
    precision: Precision,
    *,
    calibration: NDArray[Any],
    checked: NDArray[Any],
    limits: Limits,
    log: Callable[[str], None] | None = None,
) -> ReducedFacts:
    """Write ``source``, an fp32 graph, in ``precision`` to ``target``, which is replaced whole or left as it was.

    Where the result is beyond ``limits``, parts of the network stay in fp32 (``trial.search``). ``calibration`` are
    real training inputs, evenly spread, as the graph takes them (float32 ``[N, 3, S, S]`` or uint8 ``[N, S, S, 3]``);
    only int8 and fp8 need any. ``checked`` are real held-out ones of that form, at least one.

    A UsageError is raised where the precision is fp32 or unknown, or the graph has more than 1.5 GB of weights; an
    EnvironmentLacksError where ONNX Runtime, or for bf16 and fp8 NVIDIA ModelOpt, is not installed; a ResultError where
    the limits cannot be met, or the result is not what it goes by.
    """
    started = time.perf_counter()
    say = log or (lambda _: None)
    graph = load_source(source)
    recipe = recipe_for(graph, precision, calibration, say)
    expected = logits_of(graph.model, checked, optimised=True)
    trial, count = search(graph, recipe, checked, expected, limits, say)
    audit, unreduced = _audited(graph, recipe, trial)
    try:
        as_run = deviation(logits_of(trial.model, checked, optimised=True), expected).relative
    except ResultError:
        if precision in RUN_HERE:
            raise
        as_run = None
    content = trial.model.SerializeToString()
    write_atomic(target, content)
    found = trial.deviation
    how = Reduction(
        method=recipe.method,
        kept_fp32=tuple(name for name in recipe.candidates if name in trial.kept),
        difference=found.relative if found else None,
        agreement=found.agreement if found else None,
        images=len(checked),
        measured=trial.measured,
        as_run=as_run,
        calibration=f"{len(calibration)} training images, evenly spread" if precision in CALIBRATED else "",
        unreduced=unreduced,
        conversions=count,
    )
    nodes = sum(sum(counts.values()) for counts in audit.values())
    return ReducedFacts(how, nodes, len(content), time.perf_counter() - started, audit)


def _audited(graph: SourceGraph, recipe: Recipe, trial: Trial) -> tuple[OperatorDtypes, int]:
    """Return the result's dtypes, and the number of products in fp32 that the search did not put there.

    A ResultError is raised if the graph is not valid, not of the precision it goes by, or most of it stayed in fp32.
    """
    import onnx

    typed = inferred(trial.model, f"the {recipe.precision} graph")
    try:
        onnx.checker.check_model(typed, full_check=True)
    except Exception as error:  # ValidationError or InferenceError, which share no base of their own
        raise ResultError(f"the {recipe.precision} graph is not a valid ONNX graph ({one_line(error)}).") from error
    products = set(graph.products(weighted=False))
    by_search, could = len(products & trial.kept), len(products & set(recipe.candidates))
    if 2 * by_search > could:
        raise ResultError(
            f"{recipe.precision} is within its limits only with {by_search} of {could} matrix products in fp32, so "
            f"that little would be {recipe.precision}; leave this precision out."
        )
    others = len(set(unreduced_products(typed, recipe.precision)) - trial.kept)
    spared = recipe.spared
    # ModelOpt leaves products out of fp8 by rules of its own; up to half of those with weights are accepted.
    if recipe.precision == "fp8" and others - spared <= len(graph.products(weighted=True)) // 2:
        spared = others
    audit = audit_of(typed)
    check_audit(audit, recipe.precision, by_search + spared)
    return audit, others
