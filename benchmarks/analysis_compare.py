"""Whether the published procedure and ours give the same numbers: every quantity that both compute, tap by tap."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from analysis_published import PublishedTap

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.stages.analysis.results import SEP_SHARES, TapResult, first_reaching

COUNTS_APART, COUNTS_BY = 1 / 500, 1
"""Numbers of directions may differ at one in 500, by 1: where the share at the target is a matter of rounding."""
ALLOWED = {"share": 1e-5, "relative": 1e-5, "bits": 1e-3}
"""Largest difference of a share of the energy; of an amplitude or activation, relative to the tap's largest; of an
entropy: a value on the edge of a bin may be rounded into the next."""


@dataclass(frozen=True)
class Agreement:
    """How far both are apart in one quantity, over all taps and images."""

    quantity: str
    kind: str
    """``directions``, or a key of ``ALLOWED``."""
    values: int
    differing: int
    """Not exactly equal."""
    largest: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is one of rounding. What is not a number agrees with nothing."""
        if self.kind == "directions":
            return self.differing <= self.values * COUNTS_APART and self.largest <= COUNTS_BY
        return self.largest <= ALLOWED[self.kind]

    @property
    def text(self) -> str:
        """The difference in words."""
        if self.kind != "directions":
            return f"at most {self.largest:.1e} {'bits' if self.kind == 'bits' else f'({self.kind})'}"
        return "none" if not self.differing else f"{self.differing} of {self.values:,}, by at most {self.largest:.0f}"


def pairs(published: PublishedTap, ours: TapResult) -> list[tuple[str, str, Any, Any]]:
    """Quantity, kind, the published value and ours, of one tap."""
    full = np.concatenate([ours.spectrum, ours.spectrum[1 : (ours.width + 1) // 2][::-1]])
    return [
        ("SVD, directions of each image", "directions", published.rank, ours.rank),
        ("SVD, mean spectrum", "share", published.image_spectrum, ours.image_spectrum),
        ("PCA, spectrum", "share", published.pca_spectrum, ours.pca_spectrum),
        ("PCA, directions of each image", "directions", published.pca_rank, ours.pca_rank),
        ("SEP, mean curve", "share", published.sep_curve, ours.sep_unfolded),
        ("SEP, frequencies", "directions", published.sep_rank, first_reaching(ours.sep_unfolded, SEP_SHARES)),
        ("spectral intensity", "relative", published.intensity, ours.intensity),
        ("spectrum", "relative", published.spectrum, full),
        ("entropy", "bits", published.entropy, ours.entropy),
        ("magnitude", "relative", published.magnitude, ours.magnitude),
        ("least and largest", "relative", [published.low, published.high], [ours.low, ours.high]),
    ]


def compare(published: Sequence[PublishedTap], ours: Sequence[TapResult]) -> list[Agreement]:
    """Each quantity over all taps.

    Raises:
        ValueError: taps or shapes that do not match.
    """
    found: dict[str, list[tuple[str, Any, Any]]] = {}
    for theirs, own in zip(published, ours, strict=True):
        for quantity, kind, expected, value in pairs(theirs, own):
            found.setdefault(quantity, []).append((kind, np.asarray(expected), np.asarray(value)))
    rows = []
    for quantity, taps in found.items():
        apart, differing, values = [], 0, 0
        for kind, expected, value in taps:
            if expected.shape != value.shape:
                raise ValueError(f"{quantity}: shapes {expected.shape} and {value.shape} of a tap differ.")
            difference = np.abs(expected - value) / (np.abs(expected).max() if kind == "relative" else 1)
            apart.append(difference.max())
            differing += int(np.count_nonzero(expected != value))
            values += expected.size
        rows.append(Agreement(quantity, taps[0][0], values, differing, float(np.max(apart))))
    return rows


def table(rows: Sequence[Agreement]) -> str:
    """The rows as Markdown."""
    lines = ["| quantity | values | differences | allowed |", "| --- | --- | --- | --- |"]
    for row in rows:
        limit = f"{ALLOWED[row.kind]:g}" if row.kind in ALLOWED else f"1 in {1 / COUNTS_APART:.0f}, by {COUNTS_BY}"
        text = row.text if row.agrees else f"{row.text} **differs**"
        lines.append(f"| {row.quantity} | {row.values:,} | {text} | {limit} |")
    return "\n".join(lines) + "\n"
