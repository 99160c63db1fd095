"""The rows of the accuracy table, made of every model's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitcompress.core.bits import packed
from vitcompress.core.measured_records import AccuracyRow, MetricRow
from vitcompress.stages.judging.accuracy import calibration_error, paired_drop, share_interval
from vitcompress.stages.judging.answers import HeldOut
from vitcompress.stages.judging.contestant import TEACHER, Contestant


def accuracy_rows(
    models: Sequence[Contestant], held_out: HeldOut, classes: int, scores: Sequence[MetricRow] = ()
) -> tuple[AccuracyRow, ...]:
    """Return one row a model, in their order, teacher in torch among them; ``scores`` stand in the place of top-1."""
    in_torch = {
        each.model: answers
        for each, answers in zip(models, held_out.answers, strict=True)
        if each.runtime == "torch" and answers
    }
    rows = []
    for at, (each, answers) in enumerate(zip(models, held_out.answers, strict=True)):
        row: dict[str, Any] = dict.fromkeys(("top1", "top5", "drop", "drop_low", "drop_high"))
        row |= {**each.names, "provider": each.provider, "images": len(held_out.labels)}
        if answers is None:
            row["reason"] = each.reason
        elif scores:
            found = scores[at].model_dump(exclude={"metric", "label"})
            row |= {name.replace("value", "top1"): value for name, value in found.items()}
        else:
            row |= _with_ends("top1", share_interval(answers.right))
            # Of five classes or fewer, every label is among the five highest.
            row["top5"] = float(100 * answers.right5.mean()) if classes > 5 else None
            if not held_out.outputs:  # else it is no classification, and confidences are no probabilities
                row["ece"] = calibration_error(answers.confidence, answers.right)
            right = held_out.labels[answers.right]
            row["class_right"] = tuple(np.bincount(right[right >= 0], minlength=classes).tolist())
            row["right"] = packed(answers.right)
            if (each.model, each.runtime) != (TEACHER, "torch"):
                row |= _with_ends("drop", paired_drop(in_torch[TEACHER].right, answers.right))
        if answers is not None and each.runtime != "torch":
            row |= _with_ends("agreement", share_interval(answers.agrees(in_torch[each.model])))
        rows.append(AccuracyRow(**row))
    return tuple(rows)


def _with_ends(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    """Return a number and the ends of its interval as fields of a row."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
