"""What images there are, without opening them: a listing, its digest, and the splits (torch-free)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.errors import DataError
from core.fingerprint import fingerprint
from core.preprocess import IMAGE_SUFFIXES
from stages.images.config import DataConfig

EMBEDDED = "digits"
PREFIXES = ("hfds", "hfids", "torch", "wds", "tfds")
_VAL_NAMES = ("val", "validation")


def kind_of(source: str) -> str:
    """``digits``, ``timm`` (a prefixed name) or ``folder``."""
    if source == EMBEDDED:
        return EMBEDDED
    return "timm" if source.partition("/")[0].lower() in PREFIXES and not Path(source).is_dir() else "folder"


@dataclass(frozen=True)
class Listing:
    """Class folders with their files, sorted: the same folder always gives the same listing."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    """Path relative to ``root`` and class index, per image."""


def list_class_folder(root: Path) -> Listing:
    """The images below ``root``: each folder directly in it is a class, whatever lies deeper belongs to it.

    Raises:
        DataError: ``root`` is no folder, or has no class folder with images.
    """
    if not root.is_dir():
        raise DataError(f"data folder '{root}' does not exist; give a folder of class folders with --data.")
    found: dict[str, list[str]] = {}
    for entry in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = [
            (Path(folder) / name).relative_to(root).as_posix()
            for folder, _, names in os.walk(entry, followlinks=True)
            for name in names
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
        if images:
            found[entry.name] = sorted(images)
    if not found:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(
            f"data folder '{root}' has no class folders with images ({kinds}); see README, 'Your own data'."
        )
    classes = tuple(sorted(found))
    files = tuple((file, index) for index, name in enumerate(classes) for file in found[name])
    return Listing(root=root, classes=classes, files=files)


def list_splits(source: str) -> tuple[Listing, Listing | None]:
    """The listing of a folder source, and of its held-out split when it has one.

    Raises:
        DataError: missing folder, one class only, or a held-out class that training does not have.
    """
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"data folder '{source}' does not exist; give a folder of class folders with --data.")
    val_root = next((root / name for name in _VAL_NAMES if (root / name).is_dir()), None)
    has_train = (root / "train").is_dir()
    if has_train != (val_root is not None):
        have, lack = ("train/", "val/ or validation/") if has_train else (f"{getattr(val_root, 'name', '')}/", "train/")
        raise DataError(
            f"data folder '{source}' has {have} but no {lack}; add it, or give one folder of class folders to be split."
        )
    train = list_class_folder(root / "train" if has_train else root)
    val = list_class_folder(val_root) if val_root else None
    if len(train.classes) < 2:
        raise DataError(
            f"data folder '{train.root}' has one class ('{train.classes[0]}'); at least two are needed to classify."
        )
    unfit = [name for name in train.classes if not _can_be_label(name)]
    if unfit:  # found here, and not when the bundle is written after the training
        raise DataError(f"class folder {unfit[0]!r} in '{train.root}' has a line break or is not UTF-8; rename it.")
    strangers = sorted(set(val.classes) - set(train.classes)) if val else []
    if strangers:
        raise DataError(
            f"classes in '{val_root}' missing from '{train.root}': {', '.join(strangers[:8])}; add or remove them."
        )
    if val:  # a class without held-out images keeps its index from training
        index = {name: position for position, name in enumerate(train.classes)}
        files = tuple((file, index[val.classes[label]]) for file, label in val.files)
        val = Listing(root=val.root, classes=train.classes, files=files)
    else:
        alone = [
            train.classes[label] for label, count in Counter(label for _, label in train.files).items() if count < 2
        ]
        if alone:
            raise DataError(f"class '{alone[0]}' has one image, too few to hold one out; add images or a val/ folder.")
    return train, val


def _can_be_label(name: str) -> bool:
    """Whether a folder's name can be a line of the bundle's labels.txt."""
    return not any(sign in "\r\n" or "\ud800" <= sign <= "\udfff" for sign in name)


def tree_digest(root: Path) -> str:
    """SHA-256 over relative path, size and modification time of every file below ``root``, hidden ones left out.

    Raises:
        DataError: a file that cannot be looked at, such as a link to nothing.
    """
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(folder) / name
            try:
                stat = path.stat()
            except OSError as error:
                raise DataError(f"file {path} cannot be looked at ({error.strerror}); replace or remove it.") from error
            entry = f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            digest.update(os.fsencode(entry))  # file names need not be UTF-8
    return digest.hexdigest()


@lru_cache(maxsize=4)
def data_digest(config: DataConfig) -> str:
    """What changes when the images change; cheap enough to ask before every run."""
    kind = kind_of(config.source)
    parts: list[str | None] = [kind, config.source, config.root]
    if kind == EMBEDDED:
        from importlib.metadata import version

        parts.append(version("scikit-learn"))  # the pixels ship with it
    else:
        root = Path(config.source if kind == "folder" else config.root or "")
        if kind == "folder" and not root.is_dir():
            raise DataError(
                f"data folder '{config.source}' does not exist; give a folder of class folders with --data."
            )
        if root.is_dir() and (kind == "folder" or config.root):
            parts.append(tree_digest(root))
        if config.labels:
            parts.append(tree_digest_of_file(Path(config.labels)))
    return fingerprint(parts)


def tree_digest_of_file(path: Path) -> str:
    """SHA-256 of a small text file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"labels file '{path}' cannot be read ({error.strerror}); check data.labels.") from error
