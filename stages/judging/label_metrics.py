"""Images with several labels: their ranking, the thresholds of decisions, and what these are worth (torch-free).

Shapes: N images, K classes, R resamplings. Outputs are logits ``[N, K]``, whose sigmoid is the probability of each
class; NaN counts as 0. Labels are float32 ``[N, K]``, 1 for each class that an image has.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.images.held_out import class_numbers
from vitcompress.stages.judging.answers import NO_ANSWER, Answers
from vitcompress.stages.judging.metrics import Answered, Metric, Values


def _probabilities(outputs: Any) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0, -np.where(np.isnan(outputs), -np.inf, outputs).astype(np.float64))))


def _ranked(scores: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order ``[N]`` of falling scores, and the place in it of each image's last equal."""
    order = np.argsort(-scores, kind="stable")
    lasts = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    return order, lasts[np.searchsorted(lasts, np.arange(len(scores)))]


def _average_precision(scores: NDArray[Any], own: NDArray[np.bool_]) -> Values:
    """Return from counts, here ``[N, R]``, to the average precision of the class that the images ``own [N]`` have.

    Sorted once; equal scores count together, as in scikit-learn's ``average_precision_score``. NaN where none is drawn.
    """
    order, last = _ranked(scores)
    found = np.flatnonzero(own[order])
    ends, firsts = np.unique(last[found], return_index=True)  # of equals with one that has the class
    starts = np.append(0, ends[:-1] + 1)

    def values(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        hits = np.add.reduceat(counts[order[found]], firsts, axis=0)
        shown = np.add.reduceat(counts[order[: ends[-1] + 1]], starts, axis=0).cumsum(axis=0)
        upto = hits.cumsum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray((hits * upto / np.maximum(shown, 1)).sum(axis=0, dtype=np.float64) / upto[-1])

    return values


def _mean(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 100 times the mean over classes of ``[K, R]``, those with NaN left out."""
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * np.nansum(found, axis=0) / np.count_nonzero(~np.isnan(found), axis=0))


def ranking(outputs: Any, labels: NDArray[Any]) -> Values:
    """Return from counts ``[R, N]`` to the mean of the average precisions of all classes that an image drawn has."""
    scores = np.where(np.isnan(outputs), -np.inf, outputs)
    classes = [_average_precision(scores[:, k], labels[:, k] > 0) for k in np.flatnonzero(labels.any(axis=0))]

    def values(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        by_image = np.ascontiguousarray(counts.T)  # rows are taken many times as fast as columns
        return _mean(np.array([one(by_image) for one in classes]).reshape(-1, len(counts)))

    return values


def mean_average_precision(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the mean over the classes that some image has of their average precision, percent; 0 without any."""
    return float(np.nan_to_num(ranking(outputs, labels)(np.ones((1, len(labels)), np.float32)))[0])


def best_thresholds(outputs: Any, labels: NDArray[Any]) -> tuple[float, ...]:
    """Return the probability of each class above which it is decided: of the highest F1 on these images, the highest.

    Halfway to the next lower one, so that another runtime's rounding decides alike; 0.5 of a class of no image.
    """
    found, shares = np.full(labels.shape[1], 0.5), _probabilities(outputs)
    for k in np.flatnonzero(labels.any(axis=0)):
        order, last = _ranked(shares[:, k])
        upto = labels[order, k].cumsum()
        cut = last[(2 * upto[last] / (last + 1 + upto[-1])).argmax()]
        found[k] = np.append(shares[order, k], 0.0)[cut : cut + 2].mean()
    return tuple(found.tolist())


def label_answers(outputs: NDArray[Any], labels: NDArray[Any], thresholds: tuple[float, ...] = ()) -> Answers:
    """Return a tuple of class numbers for each image, by ``thresholds`` (0.5 without); right if the image has these.

    The confidence is the least probability among the K decisions.
    """
    shares, lacking = _probabilities(outputs), np.isnan(outputs).any(axis=1)
    decided, answer = shares > np.array(thresholds or 0.5), np.empty(len(outputs), dtype=object)
    for at, own in enumerate(class_numbers(decided)):
        answer[at] = NO_ANSWER if lacking[at] else own
    right = (decided == (labels > 0)).all(axis=1) & ~lacking
    return Answers(answer, np.where(lacking, 0.0, np.where(decided, shares, 1 - shares).min(axis=1)), right, right)


def _f1(micro: bool, answered: Answered) -> Values:
    """Prepare the F1 of all decisions together, or the mean of that of each class that an image drawn has.

    Each fifth of the images is decided by thresholds chosen on the others, with the outputs of the network in torch,
    as the bundle's are: on the images that chose them they would flatter.
    """
    labels, shares = answered.targets, _probabilities(answered.outputs)
    chooses = np.asarray(answered.outputs if answered.in_torch is None else answered.in_torch)
    fold, decided = np.random.default_rng(0).permutation(len(labels)) % 5, np.zeros(labels.shape, np.bool_)
    for part in (fold == number for number in range(5)):
        decided[part] = shares[part] > np.array(best_thresholds(chooses[~part], labels[~part]))
    parts = (decided & (labels > 0), decided ^ (labels > 0), labels)
    hits, misses, own = (np.asarray(part.sum(axis=1, keepdims=True) if micro else part, np.float32) for part in parts)

    def values(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        right = 2.0 * (counts @ hits)
        with np.errstate(invalid="ignore"):
            return _mean(np.where(counts @ own > 0, right / (right + counts @ misses), np.nan).T)

    return values


MAP = Metric("map", "mAP", ("multilabel",), lambda own: ranking(own.outputs, own.targets), shifted=True)
MICRO_F1 = Metric("micro_f1", "micro F1", ("multilabel",), partial(_f1, True))
MACRO_F1 = Metric("macro_f1", "macro F1", ("multilabel",), partial(_f1, False))
