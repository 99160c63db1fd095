"""The rows of the accuracy table, made of every model's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitcompress.core.artifact_records import AccuracyRow
from vitcompress.core.bits import packed
from vitcompress.stages.training.accuracy import calibration_error, paired_drop, share_interval
from vitcompress.stages.verify.contestant import TEACHER, Contestant
from vitcompress.stages.verify.held_out import Answers, HeldOut


def accuracy_rows(models: Sequence[Contestant], held_out: HeldOut, classes: int) -> tuple[AccuracyRow, ...]:
    """Return one row a model, in their order; the teacher in torch is among them."""
    in_torch = {
        each.model: answers
        for each, answers in zip(models, held_out.answers, strict=True)
        if each.runtime == "torch" and answers
    }
    rows = []
    for each, answers in zip(models, held_out.answers, strict=True):
        row: dict[str, Any] = dict.fromkeys(("top1", "top5", "drop", "drop_low", "drop_high"))
        row |= {"model": each.model, "runtime": each.runtime, "precision": each.precision}
        row |= {"provider": each.provider, "images": len(held_out.labels)}
        if answers is None:
            row["reason"] = each.reason
        else:
            row |= _shares(answers, held_out, classes)
            if (each.model, each.runtime) != (TEACHER, "torch"):
                row["drop"], row["drop_low"], row["drop_high"] = paired_drop(in_torch[TEACHER].right, answers.right)
            if each.runtime != "torch":
                agreement = share_interval(answers.agrees(in_torch[each.model]))
                row["agreement"], row["agreement_low"], row["agreement_high"] = agreement
        rows.append(AccuracyRow(**row))
    return tuple(rows)


def _shares(answers: Answers, held_out: HeldOut, classes: int) -> dict[str, Any]:
    """Return the fields of a row that need no other model."""
    top1, low, high = share_interval(answers.right)
    return {
        "top1": top1,
        "top1_low": low,
        "top1_high": high,
        # Of five classes or fewer, every label is among the five highest.
        "top5": float(100 * answers.right5.mean()) if classes > 5 else None,
        "ece": calibration_error(answers.confidence, answers.right),
        "class_right": tuple(np.bincount(held_out.labels[answers.right], minlength=classes).tolist()),
        "right": packed(answers.right),
    }
