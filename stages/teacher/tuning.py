"""The tuning part: training images that are held out to choose on, so that the held-out images only judge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.images.grouping import held_groups
from vitcompress.stages.images.splits import ListedSplit

FEWEST = 5
"""Images of a class from which one can be spared. With fewer an image than that, nothing is held out at all."""


def hold_out(
    labels: NDArray[Any], fraction: float, seed: int, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return positions held out: ``fraction`` of each class in ``labels [N]``, at least one if it has ``FEWEST``.

    Empty where there are fewer than ``FEWEST`` images a class on average: each is worth more in training then. Of
    several labels ``[N, K]``, any images are. Of images in ``groups [N]``, whole groups are held out.
    """
    if labels.ndim == 2:
        held_out = round(fraction * len(labels)) if len(labels) >= FEWEST * labels.shape[1] else 0
        if groups is not None and held_out:
            sets = [tuple(np.flatnonzero(row).tolist()) for row in labels]
            return np.flatnonzero(held_groups(sets, groups, fraction, seed))
        return np.sort(np.random.default_rng(seed).permutation(len(labels))[:held_out])
    found = np.unique(labels)
    if len(labels) < max(1, FEWEST * len(found)):
        return np.empty(0, np.int64)
    if groups is not None:
        return np.flatnonzero(held_groups([(label,) for label in labels.tolist()], groups, fraction, seed))
    generator = np.random.default_rng(seed)
    held = []
    for label in found:
        own = generator.permutation(np.flatnonzero(labels == label))
        held.append(own[: max(round(fraction * len(own)), int(len(own) >= FEWEST))])
    return np.sort(np.concatenate(held)).astype(np.int64)


def labels_of(split: Any) -> NDArray[Any]:
    """Return the classes of a split, ``[N]``, or of several ``[N, K]``; if it lists none, by opening every image."""
    listed = getattr(split, "labels", None)
    if isinstance(split, ListedSplit) and split.classes:
        return np.stack([split.target(label) for label in split.labels])
    return np.array([split[index][1] for index in range(len(split))] if listed is None else listed, np.int64)
