"""Metrics of classifications in which some classes have many images and some few (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.measured_records import Confusion
from vitcompress.stages.judging.accuracy import share_interval
from vitcompress.stages.judging.answers import NO_ANSWER, HeldOut
from vitcompress.stages.judging.contestant import TEACHER, Contestant
from vitcompress.stages.judging.metrics import Answered, Metric, Values

FEWEST = 10
"""Images of a class below which its recall, in steps of a tenth and more, says little."""
MOST_CELLS = 50 * 49
"""Cells of a confusion matrix that are recorded, the largest: of 50 classes, which the report draws, all."""


def _recalls(answered: Answered) -> Values:
    """Return from counts ``[R, N]`` to the share of each class that is answered rightly, ``[R, C]``; NaN of none."""
    order = np.argsort(answered.targets, kind="stable")
    starts = np.unique(answered.targets[order], return_index=True)[1]
    right = answered.answers.right[order]

    def recalls(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        drawn = counts[:, order]
        with np.errstate(invalid="ignore"):
            shares = np.add.reduceat(drawn * right, starts, axis=1) / np.add.reduceat(drawn, starts, axis=1)
        return shares.astype(np.float64)

    return recalls


def _macro(answered: Answered) -> Values:
    recalls = _recalls(answered)
    return lambda counts: 100 * np.nanmean(recalls(counts), axis=1)


def _least(answered: Answered) -> Values:
    recalls = _recalls(answered)
    return lambda counts: 100 * np.nanmin(recalls(counts), axis=1)


def _ends_of_least(answered: Answered) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the least recall: the least of the classes' score intervals' ends.

    The class that happens to be answered worst is worse here than it is: of 50 classes of 30 images, all with a recall
    of 80 %, resampling gives intervals that are wholly below 80 %. So upper ends hold for all K classes at once
    (Bonferroni): each at 1 - 0.025 / K.
    """
    classes = np.unique(answered.targets)
    own = [answered.answers.right[answered.targets == one] for one in classes]
    z = NormalDist().inv_cdf(1 - 0.025 / len(classes))
    return min(share_interval(right)[1] for right in own), min(share_interval(right, z)[2] for right in own)


def confusions(models: Sequence[Contestant], held_out: HeldOut) -> tuple[Confusion, ...]:
    """Return which classes are taken for which: by the teacher in torch, and by the student's ONNX files."""
    found = []
    for each, given in zip(models, held_out.answers, strict=True):
        if given is None or each.runtime != ("torch" if each.model == TEACHER else "onnx"):
            continue
        wrong = (given.answer != held_out.labels) & (given.answer != NO_ANSWER)
        pairs = np.stack([held_out.labels, given.answer], axis=1)[wrong]
        cells, counts = np.unique(pairs, axis=0, return_counts=True)
        rows = np.column_stack([cells, counts])[np.argsort(-counts, kind="stable")[:MOST_CELLS]].tolist()
        found.append(Confusion(**each.names, cells=tuple(map(tuple, rows))))
    return tuple(found)


MACRO_ACCURACY = Metric("macro_accuracy", "macro accuracy", ("classification",), _macro)
"""Mean over the classes of the share of their images that is answered rightly."""
CLASS_RECALL = Metric("class_recall", "recall of the weakest class", ("classification",), _least, _ends_of_least)
