"""The numbers of a read network: every quantity once, with its key, meaning, unit, paper and how it is computed.

``analysis.json`` and the CSV tables are made from these; figures use the same percentiles and intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    SEP_SHARES,
    Counts,
    Floats,
    TapResult,
    View,
    first_reaching,
    high_percentile,
)
from vitcompress.stages.analysis.statistics import interval

EM = "From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572"
SKD = "SpectralKD, arXiv 2412.19055"
DD = "Distillation Dynamics, arXiv 2511.06848"
OWN = "this program"
VIEWED = ("95", "99")
"""The shares of energy, in percent, that are given of every way: the ones that advice goes by."""
Percent = Literal[50, 99]
"""Percentile over images: the median, or the most demanding one in a hundred."""
Json = dict[str, Any]


def percent(share: float) -> str:
    """Return ``0.95`` as ``95``: how shares are named in keys and columns."""
    return f"{100 * share:.0f}"


def percentile(counts: Counts, share: float, percentage: Percent) -> float:
    """Return the median or 99th percentile over images of the counts for one of ENERGY_SHARES; NaN without images.

    Args:
        counts: ``[images, 4]``, a column for each of ENERGY_SHARES.
        share: which column.
        percentage: 50, the mean of both middle ones of an even number; 99, as in ``high_percentile``.
    """
    column = counts[:, ENERGY_SHARES.index(share)]
    if not len(column):
        return float("nan")
    return float(np.median(column) if percentage == 50 else high_percentile(column))


def _over_images(counts: Counts) -> Json:
    """Return for each of ENERGY_SHARES the mean, median, p99, min and max over images of counts ``[images, 4]``."""
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


def _reached(curve: Floats, shares: tuple[float, ...], part: str) -> Json:
    """Return for each share how many leading components of a cumulative curve hold it (d), also as a fraction."""
    found = zip(shares, first_reaching(curve, shares), strict=True)
    return {percent(share): {"d": d, part: d / len(curve)} for share, d in found}


def _view(view: View) -> Json:
    """Return in short what is known of a tap in one way."""
    counts = {"rank": _over_images(view.own), "pca_rank": _over_images(view.shared)}
    short: Json = {
        name: {share: {key: found[share][key] for key in ("median", "p99")} for share in VIEWED}
        for name, found in counts.items()
    }
    whole = _reached(np.cumsum(view.spectrum), ENERGY_SHARES, "of_width")
    intensity = view.intensity.mean() if len(view.intensity) else None
    return {**short, "pca": {share: whole[share]["d"] for share in VIEWED}, "intensity": intensity}


def _channels(tap: TapResult) -> Json:
    (_, top1), (strongest, top2) = tap.strongest_channels(1), tap.strongest_channels(2)
    return {"strongest": strongest, "top1": top1, "top2": top2}


def _permutation(tap: TapResult) -> Json:
    """Return the band over random channel orders, beside the channels' own order; null without any order."""
    own, orders = np.cumsum(tap.sampled), tap.permuted_curves
    bands = {
        "area": (own.mean(), orders.mean(axis=-1)),
        "d90": (first_reaching(own, (0.90,))[0], first_reaching(orders, (0.90,))[:, 0]),
    }
    return {"orders": len(orders)} | {
        name: {"own": value, "min": band.min() if len(band) else None, "max": band.max() if len(band) else None}
        for name, (value, band) in bands.items()
    }


@dataclass(frozen=True)
class Quantity:
    """One key of a tap in ``analysis.json``."""

    meaning: str
    unit: str
    of: Callable[[TapResult], Any]
    source: str = OWN


NUMBERS = {
    "layer": Quantity("Index of the block or stage, from 0.", "index", lambda tap: tap.layer),
    "name": Quantity("The tap in words.", "text", lambda tap: tap.name),
    "width": Quantity("D, the channels of a token.", "channels", lambda tap: tap.width),
    "tokens": Quantity("N, the patch tokens of an image.", "tokens", lambda tap: tap.tokens),
    "images": Quantity("Images that were read.", "images", lambda tap: tap.images),
    "kept_images": Quantity("Images that pca_rank and entropy are made of.", "images", lambda tap: tap.kept),
    "zero_tokens": Quantity(
        "Tokens without energy, left out of the spectral means.", "tokens", lambda tap: tap.zero_tokens
    ),
    "rank": Quantity(
        "Sample-wise SVD: the fewest leading singular directions of an image's own token matrix that hold 80, 90, "
        "95 or 99 % of its energy; over images: mean, median, least, greatest, and p99, the least count that at least "
        "99 % of them do not exceed.",
        "directions",
        lambda tap: _over_images(tap.rank),
        EM,
    ),
    "pca_rank": Quantity(
        "The fewest leading directions of one uncentred basis shared by all images that hold 80, 90, 95 or 99 % of an "
        "image's energy; over images as rank.",
        "directions",
        lambda tap: _over_images(tap.pca_rank),
        EM,
    ),
    "pca": Quantity(
        "The fewest leading directions of the shared basis that hold the share of the whole sample's energy (d), also "
        "as a fraction of the width (of_width).",
        "directions",
        lambda tap: _reached(np.cumsum(tap.pca_spectrum), ENERGY_SHARES, "of_width"),
        EM,
    ),
    "viewed_images": Quantity(
        "Images that rank, pca_rank and intensity of the other ways are made of.",
        "images",
        lambda tap: len(tap.viewed_rows),
    ),
    "ways": Quantity(
        "The same tap in four ways: raw, as it is; normed, after the network's own final norm (absent where it has "
        "none of this width); centred, less the mean over all tokens of all images; standardised, that over each "
        "channel's standard deviation. Of each rank, pca_rank, pca (d) and intensity (mean), of the other "
        "ways over viewed_images. Where the ways differ much, energy follows a few channels.",
        "as of rank, pca_rank, pca and intensity",
        lambda tap: {way: _view(tap.view(way)) for way in tap.ways},
    ),
    "channels": Quantity(
        "The two channels of most energy, raw (strongest), and the share of the whole sample's energy in the first "
        "(top1) and in both (top2): massive activations.",
        "index; share of energy",
        _channels,
    ),
    "sep_unfolded": Quantity(
        "Spectral energy pattern: first component (from 1) of the whole FFT over channels, frequencies 0 to D-1, at "
        "which the mean cumulative energy reaches the share; its 50 % is near D/2 for any real features.",
        "components; fraction of the D components",
        lambda tap: _reached(tap.sep_curves["unfolded"], SEP_SHARES, "fraction"),
        EM,
    ),
    "sep_folded": Quantity(
        "The same over the D // 2 + 1 frequencies of the real FFT, both halves together: it tells networks apart.",
        "frequencies; fraction of the D // 2 + 1 frequencies",
        lambda tap: _reached(tap.sep_curves["folded"], SEP_SHARES, "fraction"),
    ),
    "sep_sorted": Quantity(
        "The same with each token's D energies sorted from large to small: the bandwidth a token needs at best.",
        "components; fraction of the D components",
        lambda tap: _reached(tap.sep_curves["sorted"], SEP_SHARES, "fraction"),
    ),
    "participation": Quantity(
        "Participation ratio (sum e)^2 / sum e^2 of a token's D spectral energies, mean over tokens and images: how "
        "many components carry a token.",
        "components",
        lambda tap: interval(tap.participation),
    ),
    "permutation": Quantity(
        "Least and greatest area under the folded curve, and frequencies to 90 % (d90), over random orders of the "
        "channels, beside the channels' own order on the same tokens.",
        "share of energy; frequencies",
        _permutation,
    ),
    "order_effect": Quantity(
        "Area under the folded curve in the channels' own order less its mean over random orders, paired within each "
        "image; mean over images with a bootstrap interval, which tells how much it depends on the images, not on the "
        "orders drawn: the order of channels carries structure only where permutation's own area lies outside its "
        "least and greatest, too.",
        "share of energy",
        lambda tap: interval(tap.order_effect),
    ),
    "intensity": Quantity(
        "Spectral intensity: |FFT over channels| / D, mean over frequencies, tokens and images.",
        "activation",
        lambda tap: interval(tap.intensity),
        SKD,
    ),
    "entropy": Quantity(
        "Shannon entropy of a token's channels in 100 bins from the least low to the greatest high of all taps, mean "
        "over tokens and images.",
        "bits",
        lambda tap: interval(tap.entropy),
        DD,
    ),
    "magnitude": Quantity("Mean absolute activation.", "activation", lambda tap: interval(tap.magnitude), DD),
    "low": Quantity("Least activation over all images.", "activation", lambda tap: tap.low),
    "high": Quantity("Greatest activation over all images.", "activation", lambda tap: tap.high),
}
"""What is known of a tap in a few numbers, by its key in ``analysis.json``."""

CURVES = {
    "rank_curve": Quantity(
        "Cumulative share of an image's energy in its own leading 1, 2, ... directions, mean over images.",
        "share of energy",
        lambda tap: np.cumsum(tap.image_spectrum),
        EM,
    ),
    "pca_curve": Quantity(
        "Cumulative share of the whole sample's energy in the leading 1, 2, ... directions of the shared basis.",
        "share of energy",
        lambda tap: np.cumsum(tap.pca_spectrum),
        EM,
    ),
    "sep_folded_curve": Quantity(
        "Cumulative share of energy over the frequencies, mean over tokens.",
        "share of energy",
        lambda tap: tap.sep_curves["folded"],
    ),
    "sep_sorted_curve": Quantity(
        "Cumulative share of each token's sorted spectral energies, mean over tokens.",
        "share of energy",
        lambda tap: tap.sep_curves["sorted"],
    ),
    "spectrum": Quantity(
        "|FFT over channels| / D at each frequency, mean over tokens and images.",
        "activation",
        lambda tap: tap.spectrum,
        SKD,
    ),
}
"""Whole curves of a tap, thinned when there are many."""

OF_DOCUMENT = {
    "curve_points": ("Whether curves are whole; at gives positions from 0, value the curve there.", "text"),
    "confidence": (
        "Coverage of every interval: percentile bootstrap of the mean over images, seeded; images without a value are "
        "left out and counted.",
        "probability",
    ),
    "approach": (
        "Distance of the followed student's curve over depth from the teacher's, before, along and after training: "
        "mean absolute difference over the student's layers, with 95 % bootstrap intervals over images.",
        "the quantity's own",
    ),
    "files": ("Tables and figures written with this document.", "paths relative to it"),
    "advice": ("What the numbers suggest, or null where none was asked for.", "text and numbers"),
    "label": ("Which network of the run this is.", "text"),
    "arch": ("The architecture's name in timm.", "text"),
    "epoch": ("Epochs the checkpoint was trained; 0 before training, null if not followed.", "epochs"),
    "sample": ("Which images were read.", "text"),
    "seconds": ("Time of the forward passes, and of measuring apart from them.", "s"),
    "taps": ("What is known of each tap (the patch tokens after a block or stage), in order of depth.", "list"),
}
"""Meaning and unit of the keys of the document and of a network."""
DEFINITIONS = {key: {"meaning": meaning, "unit": unit, "source": OWN} for key, (meaning, unit) in OF_DOCUMENT.items()}
DEFINITIONS |= {
    key: {"meaning": one.meaning, "unit": one.unit, "source": one.source} for key, one in (NUMBERS | CURVES).items()
}
"""By key of ``analysis.json``: meaning, unit and source."""
