"""Metrics of classifications in which some classes have many images and some few (torch-free)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.judging.metrics import Answered, Metric, Values


def _recalls(answered: Answered) -> Values:
    """Return from counts ``[R, N]`` to the share of each class that is answered rightly, ``[R, K]``; NaN of none."""
    of_class = np.eye(answered.classes, dtype=np.float32)[answered.targets]
    right = of_class * answered.answers.right[:, None]

    def recalls(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            found: NDArray[np.float64] = (counts @ right).astype(np.float64) / (counts @ of_class)
        return found

    return recalls


def _macro(answered: Answered) -> Values:
    recalls = _recalls(answered)
    return lambda counts: 100 * np.nanmean(recalls(counts), axis=1)


def _least(answered: Answered) -> Values:
    recalls = _recalls(answered)
    return lambda counts: 100 * np.nanmin(recalls(counts), axis=1)


MACRO_ACCURACY = Metric("macro_accuracy", "macro accuracy", ("classification",), _macro)
"""Mean over the classes of the share of their images that is answered rightly."""
CLASS_RECALL = Metric("class_recall", "recall of the weakest class", ("classification",), _least)
