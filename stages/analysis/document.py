"""``analysis.json``: every number of an analysis, each quantity defined, for programs and for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitcompress.stages.analysis.definitions import DEFINITIONS
from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    SEP_SHARES,
    Counts,
    Floats,
    NetworkResult,
    TapResult,
    View,
    high_percentile,
)
from vitcompress.stages.analysis.summary import (
    CONFIDENCE,
    Interval,
    mean_interval,
    pca_smallest,
    percent,
    permuted,
    sep_curves,
    sep_smallest,
)

SCHEMA_VERSION = 1
MAX_POINTS = 70_000
"""Points of all curves together, about 1 MB of JSON; longer curves are thinned evenly, ends kept."""
VIEWED = (0.95, 0.99)
"""Of ENERGY_SHARES, those told of every way: the ones that advice goes by."""
DIGITS = 6
"""Significant digits."""


def document(networks: Sequence[NetworkResult], advice: dict[str, Any] | None) -> dict[str, Any]:
    """All numbers as finite JSON values, floats with 6 significant digits, NaN as null.

    Args:
        networks: the teacher first; others in the order they are to be read.
        advice: passed on as it is, numbers rounded.
    """
    curves = [curve for network in networks for tap in network.taps for curve in curves_of(tap).values()]
    whole = sum(len(curve) for curve in curves) <= MAX_POINTS
    limit = None if whole else max(2, MAX_POINTS // len(curves))
    made = {
        "schema_version": SCHEMA_VERSION,
        "definitions": DEFINITIONS,
        "curve_points": "all" if limit is None else f"thinned evenly to at most {limit} a curve, ends kept",
        "confidence": CONFIDENCE,
        "networks": [network_document(network, limit) for network in networks],
        "advice": advice,
    }
    rounded: dict[str, Any] = finite(made)
    return rounded


def network_document(network: NetworkResult, limit: int | None) -> dict[str, Any]:
    """One network; ``limit``: most points of a curve."""
    return {
        "label": network.label,
        "arch": network.arch,
        "epoch": network.epoch,
        "sample": network.sample,
        "images": max((tap.images for tap in network.taps), default=0),
        "seconds": {"forward": network.forward_seconds, "measure": network.measure_seconds},
        "taps": [tap_document(tap, limit) for tap in network.taps],
    }


def tap_document(tap: TapResult, limit: int | None) -> dict[str, Any]:
    """One tap; every key is explained in DEFINITIONS."""
    smallest = dict(zip(map(percent, ENERGY_SHARES), pca_smallest(tap.pca_spectrum), strict=True))
    return {
        "layer": tap.layer,
        "name": tap.name,
        "width": tap.width,
        "tokens": tap.tokens,
        "images": tap.images,
        "kept_images": tap.kept,
        "zero_tokens": tap.zero_tokens,
        "rank": over_images(tap.rank),
        "pca_rank": over_images(tap.pca_rank),
        "pca": {share: {"d": d, "of_width": d / tap.width} for share, d in smallest.items()},
        "viewed_images": len(tap.viewed_rows),
        "ways": {way: view_document(tap.view(way)) for way in tap.ways},
        "channels": channels_document(tap),
        **{f"sep_{name}": reached(curve) for name, curve in sep_curves(tap).items()},
        "participation": interval_document(mean_interval(tap.participation)),
        "permutation": permutation_document(tap),
        "order_effect": interval_document(mean_interval(tap.order_effect)),
        "intensity": interval_document(mean_interval(tap.intensity)),
        "entropy": interval_document(mean_interval(tap.entropy)),
        "magnitude": interval_document(mean_interval(tap.magnitude)),
        "low": tap.low,
        "high": tap.high,
        **{name: curve_document(curve, limit) for name, curve in curves_of(tap).items()},
    }


def view_document(view: View) -> dict[str, Any]:
    """A tap in one way, in short."""
    wanted = [percent(share) for share in VIEWED]
    whole = dict(zip(map(percent, ENERGY_SHARES), pca_smallest(view.spectrum), strict=True))
    counts = {"rank": over_images(view.own), "pca_rank": over_images(view.shared)}
    short = {
        name: {share: {key: found[share][key] for key in ("median", "p99")} for share in wanted}
        for name, found in counts.items()
    }
    intensity = view.intensity.mean() if len(view.intensity) else None
    return {**short, "pca": {share: whole[share] for share in wanted}, "intensity": intensity}


def channels_document(tap: TapResult) -> dict[str, Any]:
    """The strongest channels, and what they hold."""
    return {
        "strongest": tap.strongest_channels(2)[0],
        "top1": tap.strongest_channels(1)[1],
        "top2": tap.strongest_channels(2)[1],
    }


def curves_of(tap: TapResult) -> dict[str, Floats]:
    """The curves of a tap by key: what is not a few numbers, and so is thinned when there are many."""
    return {
        "rank_curve": np.cumsum(tap.image_spectrum),
        "pca_curve": np.cumsum(tap.pca_spectrum),
        "sep_folded_curve": tap.sep_folded,
        "sep_sorted_curve": tap.sep_sorted,
        "spectrum": tap.spectrum,
    }


def over_images(counts: Counts) -> dict[str, Any]:
    """Of counts ``[images, 4]``: mean, median, p99, min and max over images for each of ENERGY_SHARES."""
    measures: dict[str, Callable[[Counts], Any]] = {
        "mean": np.mean,
        "median": np.median,
        "p99": high_percentile,
        "min": np.min,
        "max": np.max,
    }
    return {
        percent(share): {name: measure(column) if len(column) else None for name, measure in measures.items()}
        for share, column in zip(ENERGY_SHARES, counts.T, strict=True)
    }


def reached(curve: Floats) -> dict[str, Any]:
    """Of a cumulative curve: the first component reaching each of SEP_SHARES, and its share of all components."""
    found = zip(map(percent, SEP_SHARES), sep_smallest(curve), strict=True)
    return {share: {"d": d, "fraction": d / len(curve)} for share, d in found}


def permutation_document(tap: TapResult) -> dict[str, Any]:
    """The band over random channel orders, beside the channels' own order; null without any order."""
    baseline = permuted(tap)
    own = sep_smallest(baseline.own, (0.90,))[0]
    bands = {"area": (baseline.own.mean(), baseline.areas), "d90": (own, baseline.d90)}
    return {"orders": len(baseline.curves)} | {
        name: {"own": value, "min": band.min() if len(band) else None, "max": band.max() if len(band) else None}
        for name, (value, band) in bands.items()
    }


def interval_document(found: Interval) -> dict[str, Any]:
    """A mean over images: its interval, or null with the reason."""
    made: dict[str, Any] = {"mean": found.mean, "interval": None, "images": found.images, "left_out": found.left_out}
    if found.reason is None:
        return made | {"interval": [found.low, found.high]}
    return made | {"reason": found.reason}


def curve_document(curve: Floats, limit: int | None) -> dict[str, Any]:
    """``at``: positions from 0; ``value``: the curve there."""
    at = np.arange(len(curve))
    if limit is not None and len(curve) > limit:
        at = np.unique(np.linspace(0, len(curve) - 1, limit).round().astype(int))
    return {"at": at.tolist(), "value": curve[at].tolist()}


def finite(value: Any) -> Any:
    """JSON values only: numpy's numbers as Python's, floats to 6 significant digits, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
