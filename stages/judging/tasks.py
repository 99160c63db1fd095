"""What each task is judged by: the score that the report is about, and the metrics beside it (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.records import Task
from vitcompress.stages.judging.accuracy import top1
from vitcompress.stages.judging.accuracy_rows import accuracy_rows
from vitcompress.stages.judging.answers import Answers, HeldOut
from vitcompress.stages.judging.class_metrics import CLASS_RECALL, MACRO_ACCURACY
from vitcompress.stages.judging.contestant import Contestant
from vitcompress.stages.judging.metrics import Answered, Metric, metric_rows


def _agreeing(found: Answered) -> NDArray[np.bool_] | None:
    return found.answers.agrees(found.teacher.answers) if found.teacher else None


_AGREEMENT = Metric("teacher_agreement", "agreement with the teacher", ("classification",), _agreeing, drops=False)
METRICS: tuple[Metric, ...] = (MACRO_ACCURACY, CLASS_RECALL, _AGREEMENT)
"""All there are, in the order of their rows; each is a gate too."""

SCORES: dict[Task, str] = {"classification": "top-1"}
"""What ``AccuracyRow.top1`` holds, in words."""


def answers_of(task: Task) -> Callable[[NDArray[np.float32], NDArray[Any]], Answers] | None:
    """Return what makes answers of all outputs ``[N, K]`` and labels at once; None where each batch is answered."""
    return None


def training_score(task: Task) -> Callable[[NDArray[np.float32], NDArray[Any]], float]:
    """Return the score, percent, that epochs are compared by, of outputs ``[N, K]`` and what they should have been."""
    return top1


def judged(models: Sequence[Contestant], held_out: HeldOut, classes: int, task: Task) -> dict[str, Any]:
    """Return what answers are worth, as fields of a ``VerifyRecord``; the teacher in torch is among the models."""
    metrics = [metric for metric in METRICS if task in metric.tasks]
    return {
        "task": task,
        "accuracy": accuracy_rows(models, held_out, classes),
        "metrics": metric_rows(models, held_out, classes, metrics),
        "class_images": class_images(held_out.labels, classes),
    }


def class_images(labels: NDArray[Any], classes: int) -> tuple[int, ...]:
    """Return how many images each class has: of class numbers ``[N]``, or of several labels ``[N, K]``."""
    counted = (
        labels.sum(axis=0).astype(int) if labels.ndim == 2 else np.bincount(labels[labels >= 0], minlength=classes)
    )
    return tuple(counted.tolist())
