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
from vitcompress.stages.judging.embedding_metrics import METRICS as OF_EMBEDDINGS
from vitcompress.stages.judging.embedding_metrics import against_teacher, as_classes, labelled, mean_cosine, neighbours
from vitcompress.stages.judging.metrics import Metric, metric_rows

METRICS: tuple[Metric, ...] = (MACRO_ACCURACY, CLASS_RECALL, *OF_EMBEDDINGS)
"""All there are, in the order of their rows; each is a gate too."""

SCORES: dict[Task, str] = {"classification": "top-1", "embedding": "recall@1"}
"""What ``AccuracyRow.top1`` holds, in words."""


def answers_of(task: Task) -> Callable[[NDArray[np.float32], NDArray[Any]], Answers] | None:
    """Return what makes answers of all outputs ``[N, K]`` and labels at once; None where each batch is answered."""
    return neighbours if task == "embedding" else None


def training_score(task: Task) -> Callable[[NDArray[np.float32], NDArray[Any]], float]:
    """Return the score, percent, that epochs are compared by, of outputs ``[N, K]`` and what they should have been."""
    return mean_cosine if task == "embedding" else top1


def shown(held_out: HeldOut, task: Task) -> HeldOut:
    """Return the answers as class numbers, for tables of images; of embeddings the class of the nearest image."""
    return as_classes(held_out) if task == "embedding" else held_out


def judged(models: Sequence[Contestant], held_out: HeldOut, classes: int, task: Task) -> dict[str, Any]:
    """Return what answers are worth, as fields of a ``VerifyRecord``; the teacher in torch is among the models."""
    if task == "embedding" and not labelled(held_out.labels):
        held_out = against_teacher(models, held_out)
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
