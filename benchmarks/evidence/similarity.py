"""How alike two networks see the same images, and how well one number predicts another over pairs of networks.

N images, P pairs of a teacher and a student. All in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vitcompress.stages.analysis.statistics import Rows, intervals

Floats = NDArray[np.float64]


def gram_of(features: NDArray[Any]) -> Floats:
    """Return inner products of images ``[N, N]`` of features ``[N, ...]``, flattened, less their mean over images.

    All tokens of an image are one example, so that networks of other widths and grids can be compared.
    """
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    return np.asarray(flat @ flat.T)


def cka(one: Floats, other: Floats) -> float:
    """Return the linear centred kernel alignment of two Gram matrices ``[N, N]`` of the same N > 3 images, debiased.

    1 for features that are equal up to rotation and scale, about 0 for independent ones (it can fall below); NaN where
    features do not vary. Kornblith et al. 2019 (arXiv 1905.00414, section 3), with the unbiased estimator of HSIC (Song
    et al. 2012, JMLR 13, section 2.2) as Nguyen et al. 2021 (arXiv 2010.15327): the plain one rises towards 1, whatever
    the features are, where they have more dimensions than there are images.
    """
    scale = _hsic(one, one) * _hsic(other, other)
    return float(_hsic(one, other) / np.sqrt(scale)) if scale > 0 else float("nan")


def _hsic(one: Floats, other: Floats) -> float:
    count = len(one)
    k, m = (gram - np.diag(np.diag(gram)) for gram in (one, other))
    rows_k, rows_m = k.sum(axis=0), m.sum(axis=0)
    means = rows_k.sum() * rows_m.sum() / ((count - 1) * (count - 2))
    return float(((k * m).sum() + means - 2 / (count - 2) * (rows_k @ rows_m)) / (count * (count - 3)))


def rank_correlation(one: Floats, other: Floats, seed: int = 0) -> tuple[float, float, float]:
    """Return Spearman's rank correlation over pairs ``[P]``, and its 95 % percentile interval over draws of pairs.

    In a draw where one of the two does not vary it is 0.
    """

    def correlation(rows: Rows) -> Floats:
        ranks = [stats.rankdata(values[rows], axis=-1) for values in (one, other)]
        a, b = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
        size = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
        return np.asarray(((a * b).sum(axis=-1) / np.maximum(size, 1e-12))[None])

    low, high = intervals(correlation, len(one), seed)
    return float(correlation(np.arange(len(one))[None])[0, 0]), float(low[0]), float(high[0])


def advice_score(gains: Floats, repair: NDArray[np.bool_]) -> dict[str, float]:
    """Return how often advice chose the better of plain and lift, and what it lost against always choosing that.

    ``gains [P]`` are top-1 of lift less plain, points; ``repair [P]`` is true where the advice was not ``plain``. The
    interval of the share is exact (Clopper & Pearson 1934); ``lost`` is points, mean over pairs, of the advice and of
    two rules that look at nothing.
    """
    right = np.where(repair, gains >= 0, gains <= 0)
    ends = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="exact")
    return {
        "right": float(right.mean()),
        "low": float(ends.low),
        "high": float(ends.high),
        "lost": float(np.where(right, 0, np.abs(gains)).mean()),
        "lost, always lift": float(np.maximum(-gains, 0).mean()),
        "lost, always plain": float(np.maximum(gains, 0).mean()),
    }
