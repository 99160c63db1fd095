"""What is written of an analysis in numbers: ``analysis.json`` and the CSV tables, from one summary of every tap."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitcompress.stages.analysis.quantities import CURVES, DEFINITIONS, NUMBERS, Json
from vitcompress.stages.analysis.results import WAYS, Floats, NetworkResult
from vitcompress.stages.analysis.statistics import CONFIDENCE

SCHEMA_VERSION = 1
MAX_POINTS = 70_000
"""Points of all curves together, about 1 MB of JSON; longer curves are thinned evenly, ends kept."""
DIGITS = 6
"""Significant digits."""


def summarise(networks: Sequence[NetworkResult]) -> list[Json]:
    """Return for each network what ``analysis.json`` says of it, curves aside, in numpy's numbers."""
    return [
        {
            "label": network.label,
            "arch": network.arch,
            "epoch": network.epoch,
            "sample": network.sample,
            "images": max(tap.images for tap in network.taps),
            "seconds": {"forward": network.forward_seconds, "measure": network.measure_seconds},
            "taps": [{key: one.of(tap) for key, one in NUMBERS.items()} for tap in network.taps],
        }
        for network in networks
    ]


def document(networks: Sequence[NetworkResult], summary: Sequence[Json], advice: Json | None) -> Json:
    """Return all numbers as finite JSON values, floats with 6 significant digits, NaN as null.

    Args:
        networks: the teacher first; others in the order they are to be read.
        summary: ``summarise`` of them.
        advice: passed on as it is, numbers rounded.
    """
    curves = [[{key: one.of(tap) for key, one in CURVES.items()} for tap in network.taps] for network in networks]
    lengths = [len(curve) for taps in curves for tap in taps for curve in tap.values()]
    limit = None if sum(lengths) <= MAX_POINTS else max(2, MAX_POINTS // len(lengths))
    told = [
        one | {"taps": [tap | {key: _thinned(curve, limit) for key, curve in of.items()} for tap, of in pairs]}
        for one, taps in zip(summary, curves, strict=True)
        for pairs in [zip(one["taps"], taps, strict=True)]
    ]
    made: Json = finite(
        {
            "schema_version": SCHEMA_VERSION,
            "definitions": DEFINITIONS,
            "curve_points": "all" if limit is None else f"thinned evenly to at most {limit} a curve, ends kept",
            "confidence": CONFIDENCE,
            "networks": told,
            "advice": advice,
        }
    )
    return made


def _thinned(curve: Floats, limit: int | None) -> Json:
    """Return at most ``limit`` points; ``at``: positions from 0; ``value``: the curve there."""
    at = np.arange(len(curve))
    if limit is not None and len(curve) > limit:
        at = np.unique(np.linspace(0, len(curve) - 1, limit).round().astype(int))
    return {"at": at, "value": curve[at]}


def finite(value: Any) -> Any:
    """Return JSON values only: numpy's numbers as Python's, floats to 6 digits, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return finite(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def tables(summary: Sequence[Json]) -> dict[str, str]:
    """Return the papers' tables, file name -> CSV text (RFC 4180, lines end in a line feed), a row a tap.

    Numbers have 6 significant digits; a cell without a number is empty.
    """
    columns: dict[str, Callable[[Json], Json]] = {
        "rank.csv": lambda tap: _percentiles("", tap["rank"]),
        "pca.csv": _pca_row,
        "ways.csv": _ways_row,
        "sep.csv": _sep_row,
        "intensity.csv": lambda tap: _interval_cells("intensity", tap),
        "entropy_magnitude.csv": lambda tap: {
            "kept_images": tap["kept_images"],
            **_interval_cells("entropy", tap),
            **_interval_cells("magnitude", tap),
            "low": tap["low"],
            "high": tap["high"],
        },
    }
    texts = {}
    for name, row in columns.items():
        rows = [_first_cells(network, tap) | row(tap) for network in summary for tap in network["taps"]]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(finite(row) for row in rows)
        texts[name] = text.getvalue()
    return texts


def _first_cells(network: Json, tap: Json) -> Json:
    first = {"network": network["label"], "arch": network["arch"], "epoch": network["epoch"], "layer": tap["layer"]}
    return first | {"name": tap["name"], "D": tap["width"], "tokens": tap["tokens"], "images": tap["images"]}


def _percentiles(prefix: str, found: Json) -> Json:
    """Return median and 99th percentile over images for each share."""
    return {
        f"{prefix}{name}_at_{share}%": None if of[key] is None else float(of[key])
        for share, of in found.items()
        for name, key in (("p50", "median"), ("p99", "p99"))
    }


def _interval_cells(name: str, tap: Json) -> Json:
    low, high = tap[name]["interval"] or (None, None)
    return {name: tap[name]["mean"], f"{name}_95%_low": low, f"{name}_95%_high": high}


def _pca_row(tap: Json) -> Json:
    row: Json = {"kept_images": tap["kept_images"]}
    for share, found in tap["pca"].items():
        row |= {f"d_at_{share}%": found["d"], f"d_at_{share}%_of_D_%": 100 * found["d"] / tap["width"]}
        row |= _percentiles("", {share: tap["pca_rank"][share]})
    return row


def _ways_row(tap: Json) -> Json:
    """Return for each of WAYS the counts at 95 % and the intensity, empty without a final norm; the channels."""
    row: Json = {"viewed_images": tap["viewed_images"]}
    for way in WAYS:
        view = tap["ways"].get(way, tap["ways"]["raw"])
        cells = {f"{way}_d_at_95%": view["pca"]["95"]}
        cells |= _percentiles(f"{way}_shared_", {"95": view["pca_rank"]["95"]})
        cells |= _percentiles(f"{way}_own_", {"95": view["rank"]["95"]})
        cells[f"{way}_intensity"] = view["intensity"]
        row |= cells if way in tap["ways"] else dict.fromkeys(cells)
    strongest = [*tap["channels"]["strongest"], None]
    for count in (1, 2):
        row |= {f"channel_{count}": strongest[count - 1], f"top{count}_%": 100 * tap["channels"][f"top{count}"]}
    return row


def _sep_row(tap: Json) -> Json:
    """Return d for each share of the three curves, also in percent of the curve's components (D, or D // 2 + 1)."""
    row: Json = {}
    for name, components in (("unfolded", tap["width"]), ("folded", tap["width"] // 2 + 1), ("sorted", tap["width"])):
        for share, found in tap[f"sep_{name}"].items():
            row |= {f"{name}_d{share}": found["d"], f"{name}_d{share}_%": 100 * found["d"] / components}
    return row | _interval_cells("participation", tap) | _interval_cells("order_effect", tap)
