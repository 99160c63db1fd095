"""Datasets that timm's ``create_dataset`` reads, by its prefixes (torch-free until images are asked for)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

from vitcompress.core.errors import DataError
from vitcompress.core.images import UNREADABLE, as_rgb, reason_of
from vitcompress.core.storage import is_url, located
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.objects import listing_digest
from vitcompress.stages.images.sources.folder import open_inside
from vitcompress.stages.images.sources.shards import indexed
from vitcompress.stages.images.sources.source import Source, label_names
from vitcompress.stages.images.splits import Images, StreamSplit, class_of
from vitcompress.stages.images.tree import tree_digest

_PACKAGES = {
    "hfds": "datasets",
    "hfids": "datasets",
    "torch": "torchvision",
    "wds": "webdataset",
    "tfds": "tensorflow-datasets",
}
"""The package that reads the datasets of each of timm's prefixes."""


class TimmDatasets(Source):
    """Names with timm's prefix, such as ``hfds/NAME``."""

    name = "timm"
    named_splits = True

    def owns(self, source: str) -> bool:
        """Return whether the source begins with a prefix of timm's and is no folder."""
        return source.partition("/")[0].lower() in _PACKAGES and not Path(source).is_dir()

    def images(self, config: DataConfig) -> Images:
        """Return both splits: of random access where that can be had, else as streams.

        A DataError is raised if it cannot be opened, has no names of classes, or other ones in its held-out split.
        """
        train_split, val_split = config.splits
        train = _create(config, train_split, True, config.train_samples)
        val = _create(config, val_split, False, config.val_samples)
        classes = _class_names(train, config)
        held = None if config.labels else _carried_names(val)
        if held not in (None, classes):  # its labels would count other classes than training's
            differing = ", ".join(sorted(set(classes) ^ set(held or ()))[:8]) or "in another order"
            raise DataError(f"split '{val_split}' of '{config.source}' has other classes than training: {differing}.")
        return Images(
            classes,
            _split_of(train, config, train_split, "train_samples", len(classes)),
            _split_of(val, config, val_split, "val_samples", len(classes)),
            f"split '{val_split}' of {config.source}",
        )

    def state(self, config: DataConfig) -> list[Any]:
        """Return the digest of what is below ``data.root``, or without it the settings and the package's version.

        Other images under the same name (a newer revision on a hub, shards replaced on a web server, a cleared cache)
        are then not noticed.
        """
        if config.root and is_url(config.root) and not config.root.startswith(("http", "pipe:")):
            return [*config.splits, listing_digest(config.root.rstrip("/"))]
        if config.root and Path(config.root).is_dir():
            return [tree_digest(Path(config.root))]
        try:
            reader = version(_package(config))
        except PackageNotFoundError:
            reader = None
        return [*config.splits, config.train_samples, config.val_samples, reader]


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


def _package(config: DataConfig) -> str:
    return _PACKAGES[config.source.partition("/")[0].lower()]


def _split_of(dataset: Any, config: DataConfig, name: str, setting: str, classes: int) -> Any:
    """Return a timm dataset by random access where that can be had, else as a stream of ``setting`` images."""
    from torch.utils.data import IterableDataset

    if not isinstance(dataset, IterableDataset):
        return _TimmSplit(dataset, classes)
    reader: Any = getattr(dataset, "reader", None)
    if hasattr(reader, "dist_num_replicas"):  # timm gives each process a share; here one reads, and deals out batches
        reader.dist_rank, reader.dist_num_replicas = 0, 1
    count = getattr(config, setting)
    if type(reader).__name__ == "ReaderWds" and count is None:
        found = indexed(reader, name, config.cache)
        if found is not None:
            class_of(max(found.labels, default=0), classes, f"an image of split '{name}'")
            return found
    try:
        known = count or len(dataset)  # type: ignore[arg-type]
    except (TypeError, AttributeError) as error:
        raise DataError(f"dataset '{config.source}' does not say its length; set data.{setting}.") from error
    return StreamSplit(dataset, known, classes, "data.val_samples" if setting == "val_samples" and count else "")


def _create(config: DataConfig, split: str, training: bool, count: int | None) -> Any:
    from timm.data import create_dataset

    try:
        if config.root and is_url(config.root):
            _let_webdataset_read(config.root)
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
        raise DataError(
            f"dataset '{config.source}' needs a package that is not installed ({error}); "
            f"install it: pip install {_package(config)}."
        ) from error
    except Exception as error:  # datasets libraries raise anything; each is the user's to see in one line
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise DataError(
            f"dataset '{config.source}' (root {config.root!r}, split '{split}') cannot be opened: {reason}. "
            "Check data.source, data.root, data.train_split and data.val_split."
        ) from error


def _let_webdataset_read(url: str) -> None:
    """Have it open URLs of a protocol that it does not know, such as s3, through fsspec."""
    from importlib import import_module

    def opened(name: str, mode: str = "rb", *given: Any, **more: Any) -> Any:
        filesystem, path = located(name)
        return filesystem.open(path, mode)

    import_module("webdataset.gopen").gopen_schemes.setdefault(url.partition("://")[0], opened)


def _leave_as_stored(dataset: Any) -> None:
    """Keep timm and torchvision from converting to RGB, which loses orientation, transparency and 16 bits.

    timm would also replace an image that it cannot decode by another. TFDS decodes by itself, into 8 bits.
    """
    reader = getattr(dataset, "reader", None)
    if hasattr(dataset, "load_bytes"):  # timm's ImageDataset (hfds)
        dataset.load_bytes = True
    elif reader is not None and hasattr(reader, "input_img_mode") and type(reader).__name__ != "ReaderTfds":
        reader.input_img_mode = None  # wds, hfids
    elif hasattr(dataset, "loader"):  # torchvision's folders
        dataset.loader = partial(open_inside, Path())


def _class_names(dataset: Any, config: DataConfig) -> tuple[str, ...]:
    """Return class names from the labels file, or from the dataset."""
    names = label_names(config.labels) if config.labels else _carried_names(dataset)
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
