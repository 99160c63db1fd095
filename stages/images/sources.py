"""Where images come from: the embedded digits, folders, and anything timm's ``create_dataset`` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vitcompress.core.errors import DataError
from vitcompress.core.images import UNREADABLE, as_rgb, open_image, reason_of
from vitcompress.core.records import DataRecord
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.left_out import NOTHING, File, LeftOut, path_in, require_each_class, without
from vitcompress.stages.images.listing import EMBEDDED, PACKAGES, kind_of, list_splits
from vitcompress.stages.images.shards import indexed

DIGIT_SIZE = 32


class Split(Protocol):
    """One split: images with labels, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class ListedSplit:
    """A split read by calling ``load`` on each item's key."""

    items: Sequence[tuple[Any, int]]
    load: Callable[[Any], Image.Image]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        key, label = self.items[index]
        return self.load(key), label

    def file(self, index: int) -> tuple[Path, str] | None:
        """Return the split's folder and the image's path inside it; None where images are no files."""
        return (self.load.root, self.items[index][0]) if isinstance(self.load, _FileReader) else None


class StreamSplit:
    """A split that can only be read in order (webdataset, TFDS)."""

    def __init__(self, dataset: Any, count: int, classes: int, counted_by: str = "") -> None:
        """Take a stream as a split.

        Args:
            dataset: timm's, of (image, class).
            count: of the images of a pass.
            classes: a label is below it.
            counted_by: the setting that says ``count``, where a pass must have exactly that many.
        """
        self.dataset, self.count, self.classes, self.counted_by = dataset, count, classes, counted_by

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        """Yield images with labels, in the stream's order.

        Raises:
            DataError: an image cannot be read or has no class, or there are more or fewer than ``counted_by`` says.
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


def class_of(label: Any, classes: int, what: str) -> int:
    """Return a label as a class number, from 0 to ``classes`` - 1.

    Raises:
        DataError: it is not one.
    """
    try:
        number = int(label)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} has the label {label!r}, which is no class number; correct it.") from error
    if number < 0:
        raise DataError(f"{what} has the label {number}, as images without a class have; leave it out, or label it.")
    if number >= classes:
        raise DataError(
            f"{what} is of class {number}, and there are {classes} classes, counted from 0; correct the label, or "
            "name all classes in the file of data.labels."
        )
    return number


@dataclass(frozen=True)
class Images:
    """Both splits of a source and the names of its classes."""

    classes: tuple[str, ...]
    train: Any
    """A Split or a StreamSplit."""
    val: Any
    split: str
    """How the held-out images were chosen, in words."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Files of a folder that are not recognised as images: how many, by suffix."""

    def files(self, source: Path) -> Iterator[File]:
        """Return the files of a folder source, training first; nothing for others."""
        for held_out, split in enumerate((self.train, self.val)):
            if isinstance(split, ListedSplit) and isinstance(split.load, _FileReader):
                root = split.load.root
                for key, label in sorted(split.items):
                    yield File(root / key, path_in(source, root, key), label, bool(held_out))


def open_images(config: DataConfig, left_out: LeftOut = NOTHING) -> Images:
    """Return the images of a config.

    Raises:
        DataError: see ``stages.images.listing`` and the message.
    """
    kind = kind_of(config.source)
    if kind == EMBEDDED:
        return _digits(config)
    return _folder(config, left_out) if kind == "folder" else _timm(config)


def recorded_images(record: DataRecord) -> tuple[DataConfig, Images]:
    """Return the images of a finished data stage, and the config they were opened with."""
    config = DataConfig.model_validate(record.config, strict=False)  # JSON lists become tuples again
    if kind_of(config.source) == "folder":
        left_out = LeftOut(frozenset(record.left_out), frozenset(record.dropped))
        return config, _listed_once(config, record.digest, left_out)
    return config, open_images(config)


@lru_cache(maxsize=1)
def _listed_once(config: DataConfig, digest: str, left_out: LeftOut) -> Images:
    """Return the images of a folder, listed once for all stages of a run; ``digest`` says which images they are."""
    return _folder(config, left_out)


def _hold_out(items: Sequence[tuple[Any, int]], config: DataConfig) -> tuple[list[Any], list[Any], str]:
    """Split by class, with the fixed split seed; return training items, held-out items and how, in words."""
    labels = [label for _, label in items]
    classes = len(set(labels))
    held = max(classes, round(config.val_fraction * len(items)))
    if len(items) - held < classes:
        raise DataError(f"{len(items)} images of {classes} classes are too few to hold out {held}; add images.")
    from sklearn.model_selection import train_test_split  # a second to import

    train, val = train_test_split(items, test_size=held, random_state=config.split_seed, stratify=labels)
    return train, val, f"{held} of {len(items)} images held out, stratified by class, split seed {config.split_seed}"


def digit_image(pixels: np.ndarray[Any, np.dtype[np.float64]]) -> Image.Image:
    """Return one scikit-learn digit (8 x 8, values 0 to 16) as a 32 x 32 RGB image."""
    grey = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
    return grey.resize((DIGIT_SIZE, DIGIT_SIZE), Image.Resampling.BICUBIC).convert("RGB")


def _digits(config: DataConfig) -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [digit_image(pixels) for pixels in digits.images]
    items = [(index, int(label)) for index, label in enumerate(digits.target)]
    train, val, split = _hold_out(items, config)
    load = images.__getitem__
    return Images(tuple(str(digit) for digit in range(10)), ListedSplit(train, load), ListedSplit(val, load), split)


def _folder(config: DataConfig, left_out: LeftOut) -> Images:
    train, val = list_splits(config.source, left_out.unusable)
    if val is None:
        train_items, val_items, split = _hold_out(train.files, config)
        val = train
    else:
        train_items, val_items, split = list(train.files), list(val.files), f"the images of {val.root.name}/"
    if left_out.from_training:
        train_items = list(without(train_items, left_out.from_training, train.root, Path(config.source)))
        require_each_class(train.classes, train_items, train.root)
    skipped = Counter(train.skipped) + Counter(val.skipped if val is not train else {})
    return Images(
        train.classes,
        ListedSplit(train_items, _FileReader(train.root)),
        ListedSplit(val_items, _FileReader(val.root)),
        split,
        skipped,
    )


@dataclass(frozen=True)
class _FileReader:
    """Opens a file of a listing; a class, not a closure, so that loader processes can receive it."""

    root: Path

    def __call__(self, relative: str) -> Image.Image:
        return open_image(self.root / relative)


@dataclass(frozen=True)
class _TimmSplit:
    """A random-access timm or torchvision dataset."""

    dataset: Any
    classes: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        what = f"image {index} of the dataset"
        try:
            image, label = self.dataset[index]
        except UNREADABLE as error:
            raise DataError(f"{what} cannot be read ({reason_of(error)}); remove it.") from error
        return as_rgb(image, what), class_of(label, self.classes, what)


def _timm(config: DataConfig) -> Images:
    train_split, val_split = config.splits
    train = _create(config, train_split, True, config.train_samples)
    val = _create(config, val_split, False, config.val_samples)
    classes = _class_names(train, config)
    held = None if config.labels else _carried_names(val)
    if held not in (None, classes):  # its labels would count other classes than training's
        differing = ", ".join(sorted(set(classes) ^ set(held or ()))[:8]) or "in another order"
        raise DataError(f"split '{val_split}' of '{config.source}' has other classes than training: {differing}.")
    if len(classes) < 2:
        raise DataError(f"dataset '{config.source}' has {len(classes)} classes; at least two are needed to classify.")
    return Images(
        classes,
        _split_of(train, config, len(classes), training=True),
        _split_of(val, config, len(classes), training=False),
        f"split '{val_split}' of {config.source}",
    )


def _split_of(dataset: Any, config: DataConfig, classes: int, *, training: bool) -> Any:
    """Return a timm dataset by random access where that can be had, else as a stream.

    Raises:
        DataError: its shards are damaged or of more classes, or it does not say its length.
    """
    from torch.utils.data import IterableDataset

    if not isinstance(dataset, IterableDataset):
        return _TimmSplit(dataset, classes)
    reader: Any = getattr(dataset, "reader", None)
    if hasattr(reader, "dist_num_replicas"):  # timm gives each process a share; here one reads, and deals out batches
        reader.dist_rank, reader.dist_num_replicas = 0, 1
    name = config.splits[0 if training else 1]
    setting, count = ("train_samples", config.train_samples) if training else ("val_samples", config.val_samples)
    if type(reader).__name__ == "ReaderWds" and count is None:
        found = indexed(reader, name)
        if found is not None:
            class_of(max(found.labels, default=0), classes, f"an image of split '{name}'")
            return found
    try:
        known = count or len(dataset)  # type: ignore[arg-type]
    except (TypeError, AttributeError) as error:
        raise DataError(f"dataset '{config.source}' does not say its length; set data.{setting}.") from error
    return StreamSplit(dataset, known, classes, "" if training or count is None else f"data.{setting}")


def _create(config: DataConfig, split: str, training: bool, count: int | None) -> Any:
    from timm.data import create_dataset

    try:
        dataset = create_dataset(
            config.source,
            root=config.root,
            split=split,
            is_training=training,
            num_samples=count,
            seed=config.split_seed,
        )
        _leave_as_stored(dataset)
        return dataset
    except ImportError as error:
        prefix = config.source.partition("/")[0].lower()
        raise DataError(
            f"dataset '{config.source}' needs a package that is not installed ({error}); "
            f"install it: pip install {PACKAGES[prefix]}."
        ) from error
    except Exception as error:  # datasets libraries raise anything; each is the user's to see in one line
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise DataError(
            f"dataset '{config.source}' (root {config.root!r}, split '{split}') cannot be opened: {reason}. "
            "Check data.source, data.root, data.train_split and data.val_split."
        ) from error


def _leave_as_stored(dataset: Any) -> None:
    """Keep timm and torchvision from converting to RGB, which loses orientation, transparency and 16 bits.

    timm would also put another image in the place of one that it cannot decode. TFDS decodes by itself, into 8 bits.
    """
    reader = getattr(dataset, "reader", None)
    if hasattr(dataset, "load_bytes"):  # timm's ImageDataset (hfds)
        dataset.load_bytes = True
    elif reader is not None and hasattr(reader, "input_img_mode") and type(reader).__name__ != "ReaderTfds":
        reader.input_img_mode = None  # wds, hfids
    elif hasattr(dataset, "loader"):  # torchvision's folders
        dataset.loader = _FileReader(Path())


def _class_names(dataset: Any, config: DataConfig) -> tuple[str, ...]:
    """Return class names from the labels file, or from the dataset."""
    if config.labels:
        return tuple(Path(config.labels).read_text().rstrip().splitlines())
    names = _carried_names(dataset)
    if names is None:
        raise DataError(
            f"dataset '{config.source}' does not name its classes; "
            "write them to a file, one a line in index order, and set data.labels."
        )
    return names


def _carried_names(dataset: Any) -> tuple[str, ...] | None:
    """Return class names in index order, where a dataset carries them."""
    reader = getattr(dataset, "reader", dataset)
    features = getattr(getattr(reader, "dataset", None), "features", None)
    if features and hasattr(features.get(getattr(reader, "label_key", "label")), "names"):
        return tuple(features[reader.label_key].names)
    mapping = getattr(reader, "class_to_idx", None) or getattr(dataset, "class_to_idx", None)
    return tuple(sorted(mapping, key=mapping.__getitem__)) if mapping else None
