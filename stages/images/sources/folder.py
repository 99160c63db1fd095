"""A folder of class folders, with or without train/ and val/ (torch-free)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.images import IMAGE_SUFFIXES, RGB, Channels, open_image
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.splits import Images, ListedSplit
from vitcompress.stages.images.tree import tree_digest, unlisted, walk

_VAL_NAMES = ("val", "validation")
_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test"})
_SHOWN = 8


class Folder(Source):
    """Every ``data.source`` that no other source owns."""

    name = "folder"
    is_path = True

    def owns(self, source: str) -> bool:
        """Return True."""
        return True

    def images(self, config: DataConfig) -> Images:
        """Return the image files, each of the class of the folder that it lies in, however deep.

        Hidden files and folders do not count, links are followed. A DataError is raised if the folder is missing, a
        held-out class is not in training (unless the task is embedding), or a training class has no images. Images
        without classes (``data.labelled``) are all of one, in train/ and val/ where both are there.
        """
        source = require_folder(Path(config.source))
        val_root = next((source / name for name in _VAL_NAMES if (source / name).is_dir()), None)
        has_train = (source / "train").is_dir()
        if not (config.labelled or (has_train and val_root)):
            has_train, val_root = False, None
        if has_train != (val_root is not None):
            have = "train/" if val_root is None else f"{val_root.name}/"
            lack = "train/" if val_root else "val/ or validation/"
            raise DataError(
                f"data folder '{source}' has {have} but no {lack}; add it, or give one folder of class folders to be "
                "split."
            )
        root = source / "train" if has_train else source
        train, skipped = class_files(root, config.labelled, config.pixel.suffixes)
        _require_classes(root, train, config.pixel.suffixes)
        classes = tuple(train)
        split = _split(root, "train/" if has_train else "", classes, train)
        if val_root is None:
            return Images(classes, split, None, skipped=skipped)
        val, others = class_files(val_root, config.labelled, config.pixel.suffixes)
        strangers = [name for name, files in val.items() if files and name not in train]
        if config.task == "embedding":  # nothing is learned of classes; they judge alone
            classes = tuple(sorted({*train, *strangers}))
            split = _split(root, "train/", classes, train)
        elif strangers:
            shown = ", ".join(strangers[:_SHOWN])
            raise DataError(f"classes in '{val_root}' missing from '{root}': {shown}; add or remove them.")
        held_out = _split(val_root, f"{val_root.name}/", classes, val)
        if not len(held_out):
            raise DataError(
                f"held-out folder '{val_root}' has no images; add some, or give one folder of class folders."
            )
        return Images(classes, split, held_out, f"the images of {val_root.name}/", skipped=skipped + others)

    def state(self, config: DataConfig) -> list[Any]:
        """Return the digest of all files' names, sizes and times."""
        return [tree_digest(require_folder(Path(config.source)))]


def open_inside(root: Path, relative: str, channels: Channels = RGB) -> Any:
    """Return the image file at a path inside ``root``, as ``open_image`` does."""
    return open_image(root / relative, channels)


def read_inside(root: Path, relative: str) -> bytes:
    """Return the bytes of the file at a path inside ``root``."""
    return (root / relative).read_bytes()


def _split(root: Path, prefix: str, classes: Sequence[str], files: dict[str, list[str]]) -> ListedSplit:
    items = [(file, index) for index, name in enumerate(classes) for file in files.get(name, ())]
    return ListedSplit(items, partial(open_inside, root), root, prefix, partial(read_inside, root))


def require_folder(
    folder: Path, remedy: str = "a folder of class folders or a manifest (.csv, ...) with --data"
) -> Path:
    """Return the folder; a DataError is raised if it is none."""
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise DataError(f"data folder '{folder}' {what}; give {remedy}.")
    return folder


def class_files(
    root: Path, labelled: bool = True, suffixes: Set[str] = IMAGE_SUFFIXES
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Return the image files of each folder in ``root``, all sorted, and how many others there are, by suffix.

    Not ``labelled``: of a class '' all files, however deep; a DataError is raised if there are none.
    """
    images: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    for entry in _class_folders(root) if labelled else [root]:
        found = images.setdefault(entry.name if labelled else "", [])
        for folder, names in walk(entry, root):
            inside = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
            for name in names:
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of a million files is slow
                if suffix in suffixes:
                    found.append(f"{inside}{name}")
                else:
                    others[suffix] += 1
        found.sort()
    if not labelled and not images[""]:
        raise DataError(f"folder '{root}' has no images ({_kinds()}), however deep; give one that has some.")
    return images, others


def _class_folders(root: Path) -> list[Path]:
    """Return the visible folders directly in ``root``, sorted; refuse those that are named like splits."""
    try:
        entries = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise unlisted(error, root) from error
    if not entries:
        raise DataError(
            f"data folder '{root}' has no class folders with images ({_kinds()}); see docs/data.md (images without "
            "labels: --set data.labelled=false)."
        )
    if all(entry.name.casefold() in _SPLIT_NAMES for entry in entries):  # else a problem of two classes comes of them
        names = ", ".join(f"'{entry.name}'" for entry in entries)
        raise DataError(
            f"folders in '{root}' are named like splits, not like classes: {names}; name splits exactly train/ and "
            "val/ (or validation/), or give one folder of class folders to be split."
        )
    return entries


def _require_classes(root: Path, files: dict[str, list[str]], suffixes: Set[str]) -> None:
    """Refuse training folders that are no classes; an empty one is mostly a broken copy."""
    empty = [f"'{name}'" for name, found in files.items() if not found]
    if empty:
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        raise DataError(
            f"class folders without images in '{root}': {', '.join(empty[:_SHOWN])}{more}. Images are "
            f"{_kinds(suffixes)}; convert the files, or remove the folder or hide it with a leading dot."
        )
    for name in files:
        if len(name.splitlines()) > 1 or name.encode(errors="replace").decode() != name:
            # Found here, and not when the bundle's labels.txt is written after the training.
            raise DataError(f"class folder {name!r} in '{root}' has a line break or is not UTF-8; rename it.")


def _kinds(suffixes: Set[str] = IMAGE_SUFFIXES) -> str:
    return ", ".join(sorted(suffixes))
