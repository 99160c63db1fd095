"""What embeddings are worth: held-out images are looked up among each other, by cosine (torch-free).

Each image is a query, and all others are searched (leave-one-out). Shapes: N images, E channels, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.judging.answers import NO_ANSWER, Answers, HeldOut
from vitcompress.stages.judging.contestant import TEACHER, Contestant
from vitcompress.stages.judging.metrics import Answered, Metric, Values, mean_of

NEAREST = 20
"""Neighbours kept; the k of k-NN, as DINO has it (Caron et al. 2021, arXiv 2104.14294)."""
SHARED = 10
"""Neighbours that are compared with the teacher's."""
_TEMPERATURE = 0.07
"""Of the votes of k-NN (Wu et al. 2018, arXiv 1805.01978, section 3.4)."""
_GRID = 1_000_000
"""Cosines are rounded to 1 / this, and equal ones rank in the images' order: copies of an image do so everywhere."""
_ROWS = 256
"""Queries at a time."""
_RIDGE = 0.01
"""Penalty of the linear probe, as a share of the channels' mean variance."""


@dataclass(frozen=True)
class Neighbours(Answers):
    """Of one model; ``answer`` is the position of the nearest image, ``confidence`` its cosine, at least 0.

    ``right`` is whether the nearest image has the query's class, ``right5`` whether one of the five nearest has.
    """

    nearest: NDArray[np.int64]
    """The nearest images of each, ``[N, k]``, nearest first; k is ``NEAREST``, or as many as there are."""
    similarity: NDArray[np.float64]
    """Their cosines."""
    precision: NDArray[np.float64]
    """Average precision of each query, 0 to 1 ``[N]``; NaN where no other image is of its class."""


def unit(outputs: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return embeddings ``[N, E]`` of length 1; zeros in place of one that holds a NaN or infinity."""
    vectors = np.where(np.isfinite(outputs).all(axis=1, keepdims=True), outputs, 0).astype(np.float32)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def mean_cosine(outputs: NDArray[np.float32], targets: NDArray[Any]) -> float:
    """Return 100 times the mean cosine of embeddings with what they should be, both ``[N, E]``."""
    return float(100 * (unit(outputs) * unit(targets)).sum(axis=1).mean())


def neighbours(outputs: NDArray[np.float32], labels: NDArray[Any]) -> Neighbours:
    """Return the nearest images of each of at least two, by embeddings ``[N, E]``.

    ``labels`` are class numbers ``[N]``. Where they are not those of all images, nothing is right, and there is no
    precision (see ``against_teacher``).
    """
    vectors, count = unit(outputs), len(outputs)
    lacking, kept = np.count_nonzero(vectors, axis=1) == 0, min(NEAREST, count - 1)
    parts: list[tuple[NDArray[Any], ...]] = []
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)} if labelled(labels) else {}
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))
        grid = np.rint(vectors[rows] @ vectors.T * _GRID).astype(np.int32)
        grid[:, lacking] = -2 * _GRID
        grid[rows - start, rows] = -3 * _GRID  # itself, behind all others
        order = np.arange(count) - count * grid.astype(np.int64)
        top = np.argpartition(order, kept - 1, axis=1)[:, :kept]
        top = np.take_along_axis(top, np.take_along_axis(order, top, axis=1).argsort(axis=1), axis=1)
        precision = [
            _precision(line, line[members[labels[at]]]) if members else np.nan
            for at, line in zip(rows, grid, strict=True)
        ]
        parts.append((top, np.take_along_axis(grid, top, axis=1) / _GRID, np.array(precision)))
    nearest, similarity, precisions = (np.concatenate(part) for part in zip(*parts, strict=True))
    right = np.asarray(np.equal(labels[nearest], labels[:, None]) & ~lacking[:, None], dtype=np.bool_)
    if not members:
        right[:] = False
    return Neighbours(
        answer=np.where(lacking, NO_ANSWER, nearest[:, 0]),
        confidence=np.where(lacking, 0.0, similarity[:, 0].clip(0, 1)),
        right=right[:, 0],
        right5=np.asarray(right[:, :5].any(axis=1)),
        nearest=nearest,
        similarity=similarity,
        precision=np.where(lacking & ~np.isnan(precisions), 0.0, precisions),
    )


def _precision(line: NDArray[np.int32], own: NDArray[np.int32]) -> float:
    """Return the average precision of a query by its similarities to all images, and to those of its class.

    Both hold the query itself, as the least. Equal ones count as found together, as scikit-learn counts them.
    """
    found, wanted = np.sort(line), np.sort(own)[1:]
    if not len(wanted):
        return float("nan")
    at_least = len(wanted) - np.searchsorted(wanted, wanted)
    return float((at_least / (len(found) - np.searchsorted(found, wanted))).mean())


def labelled(labels: NDArray[Any]) -> bool:
    """Return whether every image has a class."""
    return bool((labels >= 0).all())


def against_teacher(models: Sequence[Contestant], held_out: HeldOut) -> HeldOut:
    """Return the answers to images without classes: right is who finds the image that the teacher (in torch) finds."""
    at = next(at for at, one in enumerate(models) if (one.model, one.runtime) == (TEACHER, "torch"))
    teacher = held_out.answers[at]
    assert teacher is not None  # noqa: S101 - it is among the models
    found = [
        replace(one, right=one.agrees(teacher), right5=(one.nearest[:, :5] == teacher.answer[:, None]).any(axis=1))
        if isinstance(one, Neighbours)
        else None
        for one in held_out.answers
    ]
    return replace(held_out, answers=tuple(found))


def as_classes(held_out: HeldOut) -> HeldOut:
    """Return the answers as classes, for who shows them: that of the nearest image."""
    answers = [
        one and replace(one, answer=np.where(one.answer == NO_ANSWER, NO_ANSWER, held_out.labels[one.answer]))
        for one in held_out.answers
    ]
    return replace(held_out, answers=tuple(answers))


def _found(answered: Answered) -> Neighbours:
    assert isinstance(answered.answers, Neighbours)  # noqa: S101 - ``tasks.answers_of`` made them
    return answered.answers


def _recall5(answered: Answered) -> Values | None:
    return mean_of(answered.answers.right5)


def _map(answered: Answered) -> Values | None:
    precision = _found(answered).precision
    has = ~np.isnan(precision)
    return mean_of(np.nan_to_num(precision), has) if has.any() else None


def _knn(answered: Answered) -> Values | None:
    if not labelled(answered.targets):
        return None
    found = _found(answered)
    classes, weights = answered.targets[found.nearest], np.exp(found.similarity / _TEMPERATURE)
    votes = ((classes[:, :, None] == classes[:, None, :]) * weights[:, None, :]).sum(axis=2)
    winner = np.take_along_axis(classes, votes.argmax(axis=1, keepdims=True), axis=1)[:, 0]
    return mean_of((winner == answered.targets) & (found.answer != NO_ANSWER))


def _probe(answered: Answered) -> Values | None:
    """Fit a linear classifier to every other image of each class, and judge it on the rest.

    By least squares with a small penalty: a closed form, so that runtimes differ by no more than rounding.
    """
    labels, (classes, target) = answered.targets, np.unique(answered.targets, return_inverse=True)
    if not labelled(labels) or len(classes) < 2 or len(labels) < 4 * len(classes) or answered.outputs is None:
        return None
    order, place = np.argsort(labels, kind="stable"), np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    fitted = place % 2 == 0
    inputs, wanted = unit(answered.outputs).astype(np.float64), np.eye(len(classes))[target[fitted]]
    inputs -= inputs[fitted].mean(axis=0)
    gram = inputs[fitted].T @ inputs[fitted]
    penalty = _RIDGE * np.trace(gram) / len(gram) + 1e-12  # of the mean variance
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), inputs[fitted].T @ (wanted - wanted.mean(axis=0)))
    return mean_of((inputs @ weights + wanted.mean(axis=0)).argmax(axis=1) == target, ~fitted)


def _cosine(answered: Answered) -> Values | None:
    teacher = answered.teacher or answered
    if answered.outputs is None or teacher.outputs is None:
        return None
    return mean_of((unit(answered.outputs) * unit(teacher.outputs)).sum(axis=1))


def _shared(answered: Answered) -> Values | None:
    own, theirs = (_found(one).nearest[:, :SHARED] for one in (answered, answered.teacher or answered))
    return mean_of((own[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1))


METRICS: tuple[Metric, ...] = (
    Metric("recall_at_5", "recall@5", ("embedding",), _recall5),
    Metric("retrieval_map", "mean average precision of retrieval", ("embedding",), _map),
    Metric("knn_accuracy", f"k-NN accuracy (k = {NEAREST})", ("embedding",), _knn),
    Metric("probe_accuracy", "accuracy of a linear probe", ("embedding",), _probe),
    Metric("teacher_cosine", "cosine to the teacher", ("embedding",), _cosine),
    Metric("teacher_neighbours", f"share of the teacher's {SHARED} nearest images", ("embedding",), _shared),
)
"""Those of classes have no rows where images have none."""
