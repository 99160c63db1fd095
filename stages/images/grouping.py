"""Holding out whole groups of images, such as all of a patient (torch-free)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray


def held_groups(
    classes: Sequence[tuple[int, ...]], groups: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Return which images ``[N]`` are held out: whole groups, about ``fraction`` of the images of each class.

    In an order drawn from ``seed``, a group is held out if its classes' held-out shares come nearer to ``fraction`` (in
    squares, relative to the class), then for each class that has none; never all groups of a class. (scikit-learn's
    ``StratifiedGroupKFold`` has fractions 1/n, one class an image, folds without a class that has fewer groups than
    folds, and a table of groups x classes in memory.) ``classes [N]`` are those of each image.
    """
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for labels, group in zip(classes, groups.tolist(), strict=True):
        counts[group].update(labels)
    total = Counter(label for labels in classes for label in labels)
    held: Counter[int] = Counter()
    taken: set[int] = set()
    order = np.random.default_rng(seed).permutation(list(counts)).tolist()
    for last, group in product((False, True), order):
        own = counts[group]
        farther = sum(n * (2 * (held[k] - max(1, fraction * total[k])) + n) / total[k] for k, n in own.items())
        needed = farther < 0 or (last and not all(held[k] for k in own))
        if needed and group not in taken and all(held[k] + n < total[k] for k, n in own.items()):
            held.update(own)
            taken.add(group)
    return np.isin(groups, list(taken))
