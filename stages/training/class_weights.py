"""Weights of classes in the loss by labels (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcompress.core.errors import UsageError
from vitcompress.stages.images.splits import Images


def class_weights(setting: str | Mapping[str, float], images: Images) -> tuple[float, ...] | None:
    """Return the weight of each class in the loss by labels, in the order of the classes; None where all weigh alike.

    balanced: ``N / (K n_c)`` of N training images with one of K classes, n_c of them of class c (King & Zeng 2001, as
    scikit-learn has it). Where an image has several labels, a class's positives weigh ``(N - n_c) / n_c``, together as
    much as its negatives. A UsageError is raised for images that do not list their classes, and for unknown classes.
    """
    if setting == "none":
        return None
    if not isinstance(setting, str):
        if unknown := sorted(setting.keys() - set(images.classes)):
            some = ", ".join(images.classes[:8])
            raise UsageError(f"class_weights names '{unknown[0]}', which is no class; classes are called {some}, ...")
        return tuple(setting.get(name, 1.0) for name in images.classes)
    split: Any = getattr(images.train, "dataset", images.train)  # of a part of the training images, all of them
    labels = getattr(split, "labels", None)
    if labels is None:
        raise UsageError(
            "class_weights is balanced, and images of a stream, or read through timm, cannot be counted by class "
            "before training; give weights by the names of classes, for example class_weights={rare: 5}."
        )
    several = getattr(split, "classes", 0)
    numbers = np.array([one for label in labels for one in (label if several else (label,))], np.int64)
    counts = np.bincount(numbers[numbers >= 0], minlength=len(images.classes))
    total = len(labels) if several else counts.sum()
    found = (total - counts) / np.maximum(counts, 1) if several else total / np.maximum(counts * (counts > 0).sum(), 1)
    return tuple(np.where(counts > 0, found, 1.0).tolist())
