"""What each task is judged by: the score that the report is about, and the metrics beside it (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.records import Task
from vitcompress.stages.judging import label_metrics
from vitcompress.stages.judging.accuracy import correct, paired_drop, top1
from vitcompress.stages.judging.accuracy_rows import accuracy_rows
from vitcompress.stages.judging.answers import Answers, HeldOut
from vitcompress.stages.judging.chance import better_by_a_standard_error
from vitcompress.stages.judging.class_metrics import CLASS_RECALL, MACRO_ACCURACY
from vitcompress.stages.judging.contestant import Contestant
from vitcompress.stages.judging.embedding_metrics import METRICS as OF_EMBEDDINGS
from vitcompress.stages.judging.embedding_metrics import against_teacher, as_classes, labelled, mean_cosine, neighbours
from vitcompress.stages.judging.metrics import Answered, Metric, interval_fields, metric_rows, parts_of


def _agreeing(found: Answered) -> NDArray[np.bool_] | None:
    return found.answers.agrees(found.teacher.answers) if found.teacher else None


_AGREEMENT = Metric("teacher_agreement", "agreement with the teacher", ("classification",), _agreeing, drops=False)
_OF_LABELS = (label_metrics.MICRO_F1, label_metrics.MACRO_F1)
METRICS: tuple[Metric, ...] = (MACRO_ACCURACY, CLASS_RECALL, _AGREEMENT, *_OF_LABELS, *OF_EMBEDDINGS)
"""All there are, in the order of their rows; each is a gate too."""

SCORES: dict[Task, str] = {"classification": "top-1", "multilabel": "mAP", "embedding": "recall@1"}
"""What ``AccuracyRow.top1`` holds, in words, where held-out images have labels."""


def score_of(task: Task, labelled: bool = True) -> str:
    """Return what ``AccuracyRow.top1`` holds, in words; without labels the teacher's answers stand for them."""
    if labelled:
        return SCORES[task]
    return "neighbour agreement" if task == "embedding" else "agreement with the teacher"


def answers_of(task: Task) -> Callable[[NDArray[np.float32], NDArray[Any]], Answers] | None:
    """Return what makes answers of all outputs ``[N, K]`` and labels at once; None where each batch is answered."""
    if task == "multilabel":
        return label_metrics.label_answers
    return neighbours if task == "embedding" else None


def settled(models: Sequence[Contestant], held_out: HeldOut, task: Task) -> HeldOut:
    """Return what was answered; of several labels by the best thresholds of each network in torch on these images."""
    if task != "multilabel":
        return held_out
    labels = held_out.labels
    given = [(each, own) for each, own in zip(models, held_out.outputs, strict=True) if own is not None]
    chosen = {each.model: label_metrics.best_thresholds(own, labels) for each, own in given if each.runtime == "torch"}
    answers = {each: label_metrics.label_answers(own, labels, chosen[each.model]) for each, own in given}
    return replace(held_out, answers=tuple(map(answers.get, models)), thresholds=chosen)


def training_score(task: Task) -> Callable[[NDArray[np.float32], NDArray[Any]], float]:
    """Return the score, percent, that epochs are compared by, of outputs ``[N, K]`` and what they should have been."""
    return {"multilabel": label_metrics.mean_average_precision, "embedding": mean_cosine}.get(task, top1)


def gain(task: Task, one: NDArray[Any], other: NDArray[Any], labels: NDArray[Any]) -> tuple[float, ...]:
    """Return the points that outputs ``one [N, K]`` score more than ``other``, the paired 95 % interval, and whether
    they are more than a standard error: as ``paired_drop`` or, of several labels, by a bootstrap over images.
    """
    if task == "multilabel":
        values = [label_metrics.ranking(each, labels) for each in (one, other)]
        found = np.concatenate([values[0](part) - values[1](part) for part in parts_of(len(labels))])
        fields = interval_fields("points", found) or dict.fromkeys("abc", 0.0)
        return *fields.values(), bool(found[0] > np.nanstd(found[1:]))
    ours, theirs = correct(one, labels), correct(other, labels)
    return *paired_drop(ours, theirs), better_by_a_standard_error(ours, theirs)


def shown(held_out: HeldOut, task: Task) -> HeldOut:
    """Return the answers as class numbers, for tables of images; of embeddings the class of the nearest image."""
    return as_classes(held_out) if task == "embedding" else held_out


def judged(models: Sequence[Contestant], held_out: HeldOut, classes: int, task: Task) -> dict[str, Any]:
    """Return what answers are worth, as fields of a ``VerifyRecord``; the teacher in torch is among the models."""
    if task == "embedding" and not labelled(held_out.labels):
        held_out = against_teacher(models, held_out)
    metrics = [metric for metric in METRICS if task in metric.tasks]
    score = [label_metrics.MAP] if task == "multilabel" else []
    rows = metric_rows(models, held_out, classes, [*score, *metrics])
    scores, others = rows[: len(score) * len(models)], rows[len(score) * len(models) :]
    return {
        "task": task,
        "accuracy": accuracy_rows(models, held_out, classes, scores),
        "metrics": others,
        "class_images": class_images(held_out.labels, classes),
    }


def class_images(labels: NDArray[Any], classes: int) -> tuple[int, ...]:
    """Return how many images each class has: of class numbers ``[N]``, or of several labels ``[N, K]``."""
    counted = (
        labels.sum(axis=0).astype(int) if labels.ndim == 2 else np.bincount(labels[labels >= 0], minlength=classes)
    )
    return tuple(counted.tolist())
