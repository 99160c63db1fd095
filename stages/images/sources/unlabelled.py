"""Images of no class: those of any source that lists its images, and further ones of a folder (torch-free)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitcompress.core.errors import DataError
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.folder import class_files, names_in
from vitcompress.stages.images.splits import UNLABELLED, Images, ListedSplit


def class_names(given: int | str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names that ``data.classes`` means; of ImageNet's, of which some have the same words, with synsets."""
    if isinstance(given, str):
        from timm.data import ImageNetInfo  # takes torch

        known = ImageNetInfo(given)
        return tuple(map(" ".join, zip(known.label_names(), known.label_descriptions(), strict=True)))
    return tuple(f"class {number}" for number in range(given)) if isinstance(given, int) else given or ()


def without_labels(found: Images, config: DataConfig) -> Images:
    """Return the images of a source as images of no class; the classes are the teacher's.

    A DataError is raised if the source lists none or one, or the file of names has others than as many.
    """
    names = known = class_names(config.classes)
    if config.labels and len(names := tuple(names_in(config.labels))) != len(known):
        raise DataError(
            f"labels file '{config.labels}' names {len(names):,} classes, and the teacher's classifier gives "
            f"{len(known):,}; write one name a line, in its order, or leave data.labels out."
        )
    splits = [split for split in (found.train, found.val) if split is not None]
    if not all(isinstance(split, ListedSplit) for split in splits) or sum(map(len, splits)) < 2:
        raise DataError(f"'{config.source}' lists fewer than two images, which data.labelled=false needs; give more.")
    train, *val = (replace(split, items=[(key, UNLABELLED) for key, _ in split.items]) for split in splits)
    return replace(found, classes=names, train=train, val=val[0] if val else None)


def with_unlabelled(found: Images, folder: Path, config: DataConfig) -> Images:
    """Return the images of a source with all images below ``folder`` to train on, of no class.

    A DataError is raised if the source's images are no files, or some in the folder have a class.
    """
    if not found.are_files:
        raise DataError(f"data.unlabelled is '{folder}', and what --data gives are no files; give a folder or a list.")
    files, others = class_files(folder.absolute(), False, config.pixel.suffixes)
    more = [f"{folder.absolute()}/{name}" for name in files[""]]
    splits = [split for split in (found.train, found.val) if split is not None]
    if both := {f"{split.root.absolute()}/{key}" for split in splits for key, _ in split.items}.intersection(more):
        raise DataError(
            f"{len(both):,} images in data.unlabelled have a class by --data, such as {min(both)}; move them."
        )
    before = found.train
    items = [*before.items, *((path, UNLABELLED) for path in more)]
    groups, weights = before.groups, before.weights
    if groups is not None:  # each of its own
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(more))])
    if weights is not None:
        weights = np.concatenate([weights, np.full(len(more), weights.mean())])
    train = replace(before, items=items, groups=groups, weights=weights)
    return replace(found, train=train, skipped=Counter(found.skipped) + others)
