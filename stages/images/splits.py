"""Images with their classes: the two splits of a source, and how one is held out of the other (torch-free)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitcompress.core.errors import DataError
from vitcompress.core.images import as_rgb
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.grouping import held_groups

_SHOWN = 8
PER_IMAGE = ("groups", "weights")
"""What a ``ListedSplit`` may have beside its items, of each image."""
UNLABELLED = -1
"""In place of the class number of an image that has no class."""


@dataclass(frozen=True)
class Stored:
    """An image before it is decoded, for who need not decode all of it."""

    content: bytes | NDArray[np.uint8]
    """An encoded file, or RGB pixels ``[H, W, 3]``."""
    decode: Callable[[], Image.Image]
    """Returns the RGB image; a DataError is raised if it cannot be read."""


@dataclass(frozen=True)
class ListedSplit:
    """A split of random access: a key for each image, and a function that opens the image of a key."""

    items: Sequence[tuple[Any, Any]]
    """Key and class number of each image, ``UNLABELLED`` where it has none; with ``classes`` a tuple of class numbers.
    Where images are files, the key is the path inside ``root``, or an absolute one."""
    load: Callable[[Any], Image.Image]
    """Returns the RGB image of a key. Loader processes receive it, so it must be picklable."""
    root: Path | None = None
    """Folder of the files; None where images are no files."""
    prefix: str = ""
    """Where ``root`` is in the source, such as ``train/``; part of the files' names in messages and records."""
    read: Callable[[Any], bytes | NDArray[np.uint8]] | None = None
    """Returns what the image of a key is decoded from (``Stored``); it must be picklable too. None: there is
    only ``load``. An OSError is raised if it cannot be read."""

    classes: int = 0
    """Where an image has any number of classes: how many there are in all. Its label is then handed out as float32
    ``[classes]``, 1 for each of its own and else 0."""
    groups: NDArray[np.int64] | None = None
    """``[N]``: images of one number are in one split; None: each may be in any."""
    weights: NDArray[np.float64] | None = None
    """``[N]``: how often training draws an image, relative to others; None: each once a pass."""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        key, label = self.items[index]
        return self.load(key), self.target(label)

    def target(self, label: Any) -> Any:
        """Return what stands for a label in batches: itself, or with ``classes`` float32 ``[classes]``."""
        return multi_hot(label, self.classes) if self.classes else label

    def stored(self, index: int) -> tuple[Stored | Image.Image, Any]:
        """Return an image that is not decoded yet, where that can be had, and its class."""
        key, label = self.items[index]
        with suppress(OSError):  # load says it in words
            if self.read is not None:
                return Stored(self.read(key), partial(self.load, key)), self.target(label)
        return self.load(key), self.target(label)

    @property
    def labels(self) -> list[Any]:
        """Return the label of each image, as in ``items``."""
        return [label for _, label in self.items]

    @property
    def class_sets(self) -> list[tuple[int, ...]]:
        """Return the class numbers of each image; ``(UNLABELLED,)`` where it has no class."""
        return [(label or (UNLABELLED,)) if isinstance(label, tuple) else (label,) for _, label in self.items]

    def taken(self, positions: NDArray[np.integer[Any]]) -> ListedSplit:
        """Return the split of the images at ``positions [M]``, in that order."""
        more = {name: given[positions] for name in PER_IMAGE if (given := getattr(self, name)) is not None}
        return replace(self, items=[self.items[at] for at in positions.tolist()], **more)

    def without(self, names: Set[str]) -> ListedSplit:
        """Return the split without the files of these names (``File.name``)."""
        if not names:
            return self
        kept = [at for at, (key, _) in enumerate(self.items) if self.name(key) not in names]
        return self.taken(np.array(kept, np.int64))

    def name(self, key: str) -> str:
        """Return ``File.name`` of a file: its path inside the source, or an absolute one as it is."""
        return printable(os.path.join(self.prefix, key))  # noqa: PTH118 - a Path for each of a million is slow


@dataclass(frozen=True)
class StreamSplit:
    """A split that can only be read in order (webdataset, TFDS)."""

    dataset: Any
    """Iterable of (image, class)."""
    count: int
    """Images of a pass."""
    classes: int
    counted_by: str = ""
    """The setting that gave ``count``, where a pass must have exactly that many images."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        """Yield images with labels, in the stream's order.

        A DataError is raised if one cannot be read or has no class, or there are not as many as ``counted_by`` says.
        """
        read = 0
        for image, label in self.dataset:
            what = f"image {read} of the stream"
            yield as_rgb(image, what), class_of(label, self.classes, what)
            read += 1
        if self.counted_by and read != self.count:
            raise DataError(
                f"the stream of held-out images ended after {read:,} images, and {self.counted_by} says "
                f"{self.count:,}; set {self.counted_by}={read}."
            )


def multi_hot(label: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Return class numbers as float32 ``[classes]``, 1 for each of them and else 0."""
    target = np.zeros(classes, np.float32)
    target[list(label)] = 1
    return target


def class_of(label: Any, classes: int, what: str) -> int:
    """Return a label as a class number, from 0 to ``classes`` - 1; a DataError is raised if it is none."""
    try:
        number = int(label)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} has the label {label!r}, which is no class number; correct it.") from error
    if not 0 <= number < classes:
        raise DataError(
            f"{what} is of class {number}, and there are {classes} classes, counted from 0; correct the label, leave "
            "the image out, or name all classes in the file of data.labels."
        )
    return number


@dataclass(frozen=True)
class File:
    """An image file of a source."""

    path: Path
    name: str
    """Path inside the source, as of ``printable``."""
    label: int
    held_out: bool


@dataclass(frozen=True)
class Images:
    """Both splits of a source and the names of its classes."""

    classes: tuple[str, ...]
    train: Any
    """A ``ListedSplit``, a ``StreamSplit``, or anything with a length that gives (image, class) by index."""
    val: Any
    """The held-out images, likewise; None, of a source without a held-out split: they are taken from ``train``, a
    ``ListedSplit``."""
    split: str = ""
    """How the held-out images were chosen, in words."""
    multilabel: bool = False
    """Whether an image has any number of classes; its splits then have ``classes``."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Files that are not recognised as images: how many, by suffix."""
    read: str = ""
    """What was read of a table, in words."""

    @property
    def are_files(self) -> bool:
        """Whether each image is a file, which can be checked and compared before training."""
        return isinstance(self.train, ListedSplit) and self.train.root is not None

    def files(self) -> Iterator[File]:
        """Yield all files, training first, sorted; nothing where images are no files."""
        for split, held_out in ((self.train, False), (self.val, True)):
            if isinstance(split, ListedSplit) and split.root is not None:
                for key, label in sorted(split.items):
                    yield File(split.root / key, split.name(key), label, held_out)

    @property
    def unlabelled(self) -> int:
        """Return how many training images have no class."""
        return self.train.labels.count(UNLABELLED) if isinstance(self.train, ListedSplit) else 0

    def labelled(self, *, as_many: bool = False) -> Images:
        """Return the images without training images of no class; ``as_many``: the others repeated in their place."""
        if not self.unlabelled:
            return self
        have = np.flatnonzero([label != UNLABELLED for label in self.train.labels])
        train = self.train.taken(np.resize(have, len(self.train)) if as_many else have)
        if train.weights is not None and np.ptp(train.weights) == 0:  # those of ``_half_labelled``
            train = replace(train, weights=None)
        return replace(self, train=train)


def evenly_spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` positions among ``total``, the first and the last among them."""
    return [int(position) for position in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))]


def printable(name: str) -> str:
    """Return a path with escapes for letters that are not UTF-8, so that it can go into JSON and HTML."""
    return os.fsencode(name).decode(errors="backslashreplace")


def split_images(found: Images, config: DataConfig, left_out: Set[str], dropped: Set[str]) -> Images:
    """Return what a source found, without the files to leave out, and with held-out images.

    Files named in ``left_out`` (``File.name``) count as absent; those in ``dropped`` are not trained on, and the
    held-out images stay the same ones. A DataError is raised if a class has no image left to train on, or too few to
    hold one out.
    """
    if not isinstance(found.train, ListedSplit):
        if config.sampling == "balanced":
            raise DataError(
                f"data.sampling is balanced, and '{config.source}' does not list its classes; leave it out."
            )
        return found
    train = found.train.without(left_out)
    _require_each_class(found.classes, found.train, train)
    if found.val is None:
        train, val, how = _hold_out(train, found.classes, config)
        found = replace(found, val=val, split=how)
    elif isinstance(found.val, ListedSplit):
        found = replace(found, val=found.val.without(left_out))
    listed, train = train, train.without(dropped)
    _require_each_class(found.classes, listed, train)
    if config.task == "classification":
        train = _half_labelled(train)
    if config.sampling == "balanced":
        train = replace(train, weights=_balanced(train))
    if train.weights is not None and not train.weights.any():
        raise DataError(f"every training image of '{config.source}' has the weight 0; give some a weight above 0.")
    return replace(found, train=train)


def _hold_out(split: ListedSplit, classes: Sequence[str], config: DataConfig) -> tuple[ListedSplit, ListedSplit, str]:
    """Split by class, with the fixed split seed; return training split, held-out split and how, in words.

    Groups stay together. Images without a class are trained on where others have one.
    """
    labels, sets, words = split.labels, split.class_sets, f"split seed {config.split_seed}"
    some = np.array([at for at, label in enumerate(labels) if label != UNLABELLED] or range(len(labels)), np.int64)
    if split.groups is not None or split.classes:
        groups, unit = (split.groups, "group") if split.groups is not None else (np.arange(len(split)), "image")
        val = some[held_groups([sets[at] for at in some], groups[some], config.val_fraction, config.split_seed)]
        train = np.flatnonzero(~np.isin(groups, groups[val]))
        ours, theirs = ({label for at in part for label in sets[at]} for part in (train, val))
        if short := [f"'{classes[label]}'" for label in sorted(ours ^ theirs) if label >= 0]:
            raise DataError(
                f"class {_named(short)} has too few {unit}s to hold one out and to train on another; add images, or "
                "say which are held out (a split column, a val/ folder)."
            )
        how = f"{len(val)} of {len(some)} images held out, {unit} by {unit}, near {config.val_fraction:g} of each class"
        if neither := len(split) - len(train) - len(val):
            words += f"; {neither} of these groups have no class, and are in neither part"
        return split.taken(train), split.taken(val), f"{how}, {words}"
    by_class = [labels[at] for at in some]
    counts = Counter(by_class)
    alone = [f"'{classes[label]}'" for label, count in counts.items() if count < 2]
    if alone:
        which = f"class {alone[0]} has" if len(alone) == 1 else f"each of the classes {_named(alone)} has"
        raise DataError(f"{which} one image, too few to hold one out; add images or a val/ folder.")
    images, held = len(some), max(len(counts), round(config.val_fraction * len(some)))
    if images - held < len(counts):
        raise DataError(f"{images} images of {len(counts)} classes are too few to hold out {held}; add images.")
    from sklearn.model_selection import train_test_split  # a second to import

    train, val = train_test_split(some, test_size=held, random_state=config.split_seed, stratify=by_class)
    train = np.concatenate([train, np.setdiff1d(np.arange(len(split)), some)])
    stratified = "" if UNLABELLED in counts else ", stratified by class"
    return split.taken(train), split.taken(val), f"{held} of {images} images held out{stratified}, {words}"


def _balanced(split: ListedSplit) -> NDArray[np.float64]:
    """Return weights ``[N]`` that draw every class equally often; images without one keep their share among all."""
    sets = split.class_sets
    counts = Counter(chain.from_iterable(sets))
    each = {label: 1 / count for label, count in counts.items()}
    if UNLABELLED in counts and not split.classes:
        each[UNLABELLED] = max(1, len(counts) - 1) / max(1, len(sets) - counts[UNLABELLED])
    found = np.array([sum(each[label] for label in labels) / len(labels) for labels in sets])
    return found if split.weights is None else found * split.weights


def _half_labelled(split: ListedSplit) -> ListedSplit:
    """Return the split with weights by which half of the draws have a class, where fewer images have one.

    Else the labels, which alone say where the teacher errs, would hardly count among many images without.
    """
    have = np.array([label != UNLABELLED for label in split.labels])
    labelled, others = np.count_nonzero(have), np.count_nonzero(~have)
    if split.weights is not None or not 0 < labelled < others:
        return split
    return replace(split, weights=np.where(have, others / labelled, 1.0))


def _require_each_class(classes: Sequence[str], before: ListedSplit, train: ListedSplit) -> None:
    """Raise a DataError where classes that had training images ``before`` have none left."""
    gone = set() if train is before else {*chain(*before.class_sets)} - {UNLABELLED, *chain(*train.class_sets)}
    if gone:
        names = [f"'{classes[label]}'" for label in sorted(gone)]
        raise DataError(
            f"no training image is left of class {_named(names)} in '{train.root}': all of them are left out "
            "(data.on_bad_image, data.on_duplicates); repair or add images, or remove the class."
        )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
