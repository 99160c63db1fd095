"""The tables of the papers as CSV: one file a table, one row a tap, network and epoch in the first columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from vitcompress.stages.analysis.document import finite
from vitcompress.stages.analysis.results import ENERGY_SHARES, SEP_SHARES, WAYS, Floats, NetworkResult, TapResult
from vitcompress.stages.analysis.summary import (
    PERCENTS,
    mean_interval,
    pca_smallest,
    percent,
    percentile,
    sep_curves,
    sep_smallest,
)

Row = dict[str, Any]


def tables(networks: Sequence[NetworkResult]) -> dict[str, str]:
    """File name -> CSV text with a header line; numbers to 6 significant digits, nothing where there is no number."""
    makers: dict[str, Callable[[TapResult], Row]] = {
        "rank.csv": rank_row,
        "pca.csv": pca_row,
        "ways.csv": ways_row,
        "sep.csv": sep_row,
        "intensity.csv": intensity_row,
        "entropy_magnitude.csv": entropy_row,
    }
    return {
        name: csv_text([first_columns(network, tap) | maker(tap) for network in networks for tap in network.taps])
        for name, maker in makers.items()
    }


def csv_text(rows: Sequence[Row]) -> str:
    """CSV (RFC 4180, but lines end in a line feed) of rows with the same keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(row) for row in rows)
    return text.getvalue()


def first_columns(network: NetworkResult, tap: TapResult) -> Row:
    """Which tap of which network a row is about."""
    return {
        "network": network.label,
        "arch": network.arch,
        "epoch": network.epoch,
        "layer": tap.layer,
        "name": tap.name,
        "D": tap.width,
        "tokens": tap.tokens,
        "images": tap.images,
    }


def rank_row(tap: TapResult) -> Row:
    """Sample-wise SVD [EM]: median and 99th percentile over images for each share."""
    return {
        f"p{percentage}_at_{percent(share)}%": percentile(tap.rank, share, percentage)
        for share in ENERGY_SHARES
        for percentage in PERCENTS
    }


def pca_row(tap: TapResult) -> Row:
    """Dataset PCA [EM]: for each share d of the whole sample, and median and 99th percentile over kept images."""
    row: Row = {"kept_images": tap.kept}
    for share, d in zip(ENERGY_SHARES, pca_smallest(tap.pca_spectrum), strict=True):
        row |= {f"d_at_{percent(share)}%": d, f"d_at_{percent(share)}%_of_D_%": 100 * d / tap.width}
        row |= {f"p{number}_at_{percent(share)}%": percentile(tap.pca_rank, share, number) for number in PERCENTS}
    return row


def ways_row(tap: TapResult) -> Row:
    """In each of WAYS, at 95 %: d of the whole sample, median and 99th percentile over images of an image's shared and
    own directions; mean intensity; the channels of most energy. Nothing where there is no final norm."""
    row: Row = {"viewed_images": len(tap.viewed_rows)}
    for way in WAYS:
        view = tap.view(way)
        there = way in tap.ways
        found: Row = {"d_at_95%": pca_smallest(view.spectrum)[ENERGY_SHARES.index(0.95)]}
        for name, counts in (("shared", view.shared), ("own", view.own)):
            found |= {f"{name}_p{number}_at_95%": percentile(counts, 0.95, number) for number in PERCENTS}
        found["intensity"] = view.intensity.mean() if len(view.intensity) else None
        row |= {f"{way}_{name}": value if there else None for name, value in found.items()}
    for count in (1, 2):
        channels, share = tap.strongest_channels(count)
        row |= {f"channel_{count}": channels[-1] if len(channels) == count else None, f"top{count}_%": 100 * share}
    return row


def sep_row(tap: TapResult) -> Row:
    """SEP [EM]: d for each share of the three curves, and d as percentage of the curve's components (D, or D//2+1)."""
    row: Row = {}
    for name, curve in sep_curves(tap).items():
        for share, d in zip(SEP_SHARES, sep_smallest(curve), strict=True):
            row |= {f"{name}_d{percent(share)}": d, f"{name}_d{percent(share)}_%": 100 * d / len(curve)}
    return row | with_interval("participation", tap.participation) | with_interval("order_effect", tap.order_effect)


def intensity_row(tap: TapResult) -> Row:
    """Spectral intensity [SKD]."""
    return with_interval("intensity", tap.intensity)


def entropy_row(tap: TapResult) -> Row:
    """Entropy in bits and mean absolute activation [DD], with the range the bins span."""
    return {
        "kept_images": tap.kept,
        **with_interval("entropy", tap.entropy),
        **with_interval("magnitude", tap.magnitude),
        "low": tap.low,
        "high": tap.high,
    }


def with_interval(name: str, values: Floats) -> Row:
    """Mean over images and the ends of its 95 % interval."""
    found = mean_interval(values)
    return {name: found.mean, f"{name}_95%_low": found.low, f"{name}_95%_high": found.high}
