"""The numbers of an analysis as ``analysis.json``, whose keys docs/analysis.md explains, and as CSV tables of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitcompress.core.analysis_records import Advice
from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    SEP_SHARES,
    Counts,
    Floats,
    NetworkResult,
    TapResult,
    first_reaching,
    high_percentile,
)
from vitcompress.stages.analysis.statistics import CONFIDENCE, interval

SCHEMA_VERSION = 2
DIGITS = 6
"""Significant digits."""
Json = dict[str, Any]
_FIRST = ("layer", "name", "width", "tokens", "images", "kept_images")
TABLES = {
    "rank": ("rank",),
    "pca": ("pca", "pca_rank"),
    "sep": ("sep_unfolded", "sep_folded", "sep_sorted", "participation", "order_effect"),
    "intensity": ("intensity",),
    "entropy_magnitude": ("entropy", "magnitude", "low", "high"),
}
"""The papers' tables: file name, and the keys of a tap whose numbers are its columns."""


def document(networks: Sequence[NetworkResult], advice: Advice | None, approach: Sequence[Json] = ()) -> Json:
    """Return all numbers as finite JSON values, floats with 6 significant digits, NaN as null.

    The teacher, or the only network, comes first; ``advice`` is for a student of it.
    """
    made: Json = _finite(
        {
            "schema_version": SCHEMA_VERSION,
            "confidence": CONFIDENCE,
            "networks": [
                {
                    "label": network.label,
                    "arch": network.arch,
                    "epoch": network.epoch,
                    "sample": network.sample,
                    "images": network.taps[-1].images,
                    "taps": [_tap(tap) for tap in network.taps],
                }
                for network in networks
            ],
            "advice": advice.model_dump(mode="json") if advice else None,
            "approach": list(approach),
        }
    )
    return made


def _tap(tap: TapResult) -> Json:
    strongest, energy_of_two = tap.strongest_channels(2)
    return {
        "layer": tap.layer,
        "name": tap.name,
        "width": tap.width,
        "tokens": tap.tokens,
        "images": tap.images,
        "kept_images": tap.kept,
        "viewed_images": len(tap.viewed_rows),
        "rank": _over_images(tap.rank),
        "pca_rank": _over_images(tap.pca_rank),
        "pca": _reached(np.cumsum(tap.pca_spectrum), ENERGY_SHARES),
        "ways": {
            way: {
                "rank": _over_images(view.own),
                "pca_rank": _over_images(view.shared),
                "pca": _reached(np.cumsum(view.spectrum), ENERGY_SHARES),
                "intensity": view.intensity.mean(),
            }
            for way, view in zip(tap.ways, map(tap.view, tap.ways), strict=True)
        },
        "channels": {"strongest": strongest, "top1": tap.strongest_channels(1)[1], "top2": energy_of_two},
        "sep_unfolded": _reached(tap.sep_unfolded, SEP_SHARES),
        "sep_folded": _reached(np.cumsum(tap.sep_energy), SEP_SHARES),
        "sep_sorted": _reached(tap.sep_sorted, SEP_SHARES),
        "participation": interval(tap.participation),
        "permutation": _permutation(tap),
        "order_effect": interval(tap.order_effect),
        "intensity": interval(tap.intensity),
        "entropy": interval(tap.entropy),
        "magnitude": interval(tap.magnitude),
        "low": tap.low,
        "high": tap.high,
        "rank_curve": np.cumsum(tap.image_spectrum),
        "pca_curve": np.cumsum(tap.pca_spectrum),
        "sep_folded_curve": np.cumsum(tap.sep_energy),
        "sep_sorted_curve": tap.sep_sorted,
        "spectrum": tap.spectrum,
    }


def _permutation(tap: TapResult) -> Json:
    """Return the folded curve, its area and its frequencies to 90 %: in the channels' own order and in random ones."""
    own, orders = np.cumsum(tap.sampled), np.cumsum(tap.permuted, axis=-1)
    found = {
        "area": (own.mean(), orders.mean(axis=-1)),
        "d90": (first_reaching(own, (0.90,))[0], first_reaching(orders, (0.90,))[:, 0]),
        "curve": (own, orders),
    }
    bands = {
        key: {"own": one, "min": every.min(axis=0), "max": every.max(axis=0)} for key, (one, every) in found.items()
    }
    return {"orders": len(orders)} | bands


def _over_images(counts: Counts) -> Json:
    """Return mean, median and 99th percentile over images of counts ``[images, 4]``, for each of ENERGY_SHARES."""
    return {
        _percent(share): {"mean": column.mean(), "median": np.median(column), "p99": high_percentile(column)}
        for share, column in zip(ENERGY_SHARES, counts.T, strict=True)
    }


def _reached(curve: Floats, shares: tuple[float, ...]) -> dict[str, int]:
    """Return how many leading components of a cumulative curve hold each share."""
    return {_percent(share): int(d) for share, d in zip(shares, first_reaching(curve, shares), strict=True)}


def _percent(share: float) -> str:
    """Return ``0.95`` as ``95``."""
    return f"{100 * share:.0f}"


def tables(content: Json) -> dict[str, str]:
    """Return the papers' tables of a ``document``, file name -> CSV text (RFC 4180), a row a tap.

    A column is named by the path to its number in the JSON, ``rank_95_p99``; a cell without a number is empty.
    """
    texts = {}
    for name, keys in TABLES.items():
        rows = [
            {"network": network["label"], "epoch": network["epoch"]}
            | {key: tap[key] for key in _FIRST}
            | {column: cell for key in keys for column, cell in _cells(key, tap[key]).items()}
            for network in content["networks"]
            for tap in network["taps"]
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        texts[name] = text.getvalue()
    return texts


def _cells(name: str, value: Any) -> Json:
    if not isinstance(value, dict):
        return {name: value}
    if "interval" in value:
        low, high = value["interval"] or (None, None)
        return {name: value["mean"], f"{name}_low": low, f"{name}_high": high}
    return {column: cell for key, inner in value.items() for column, cell in _cells(f"{name}_{key}", inner).items()}


def _finite(value: Any) -> Any:
    """Return JSON values only: numpy's numbers as Python's, floats to 6 digits, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _finite(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
