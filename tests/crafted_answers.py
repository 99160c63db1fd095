"""Answers made by hand: models that only need to be named, and what they say to each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.judging.answers import Answers, HeldOut
from vitcompress.stages.judging.contestant import Contestant

SPEC = PreprocessSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def named(model: str, runtime: Runtime, precision: Precision = "fp32", **more: Any) -> Contestant:
    """A contestant that is never asked anything."""
    return Contestant(model, runtime, SPEC, None, precision=precision, **more)


def said(labels: Sequence[int], answers: Sequence[int], confidence: Sequence[float] | float = 0.5) -> Answers:
    """The answers of one model; top-5 as top-1."""
    answer = np.array(answers, dtype=np.int64)
    right = answer == np.array(labels)
    return Answers(answer, np.broadcast_to(np.array(confidence, dtype=float), answer.shape), right, right)


def held_out(labels: Sequence[int], *answers: Answers | None) -> HeldOut:
    names = tuple(f"image {index}" for index in range(len(labels)))
    return HeldOut(names=names, labels=np.array(labels), digest="d" * 64, answers=answers)
