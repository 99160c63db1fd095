"""What images there are, without opening them: a listing, its digest, and the splits (torch-free)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.images import IMAGE_SUFFIXES
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.left_out import require_each_class, without

EMBEDDED = "digits"
PACKAGES = {
    "hfds": "datasets",
    "hfids": "datasets",
    "torch": "torchvision",
    "wds": "webdataset",
    "tfds": "tensorflow-datasets",
}
"""The package that reads the datasets of each of timm's prefixes."""
_VAL_NAMES = ("val", "validation")
_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test"})
_SHOWN = 8


def kind_of(source: str) -> str:
    """Return ``digits``, ``timm`` (a prefixed name) or ``folder``."""
    if source == EMBEDDED:
        return EMBEDDED
    return "timm" if source.partition("/")[0].lower() in PACKAGES and not Path(source).is_dir() else "folder"


@dataclass(frozen=True)
class Listing:
    """Class folders with their files, sorted: the same folder always gives the same listing."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    """Path relative to ``root`` and class index, per image."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Files in class folders that are not recognised as images: how many, by suffix."""


def list_class_folder(root: Path, *, held_out: bool = False) -> Listing:
    """Return the images below ``root``: each folder directly in it is a class, whatever lies deeper belongs to it.

    Hidden files and folders do not count, links are followed.

    Args:
        root: the folder of class folders.
        held_out: whether these are a held-out split's, whose classes may lack images.

    Raises:
        DataError: ``root`` is no folder, its folders are no classes, or a class has no images.
    """
    entries = _class_folders(root)
    found: dict[str, list[str]] = {}
    imageless: dict[str, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    for entry in entries:
        others: Counter[str] = Counter()
        images: list[str] = []
        for folder, names in _walk(entry, root):
            inside = folder.relative_to(root).as_posix()
            for name in names:
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of a million files is slow
                if suffix in IMAGE_SUFFIXES:
                    images.append(f"{inside}/{name}")
                else:
                    others[suffix] += 1
        skipped += others
        if images:
            found[entry.name] = sorted(images)
        elif others or not held_out:
            imageless[entry.name] = others
    if imageless:
        raise _imageless(root, imageless)
    if not found:
        raise DataError(f"held-out folder '{root}' has no images; add some, or give one folder of class folders.")
    classes = tuple(sorted(found))
    files = tuple((file, index) for index, name in enumerate(classes) for file in found[name])
    return Listing(root=root, classes=classes, files=files, skipped=dict(skipped))


def _class_folders(root: Path) -> list[Path]:
    """Return the visible folders directly in ``root``, sorted.

    Raises:
        DataError: ``root`` is no folder or holds none, they have the names of splits, or two of them are the same one.
    """
    _require_folder(root)
    try:
        entries = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise _unseen(error, root) from error
    if not entries:
        raise DataError(f"data folder '{root}' has no class folders with images ({_kinds()}); {_README}.")
    if all(entry.name.casefold() in _SPLIT_NAMES for entry in entries):  # else a problem of two classes comes of them
        names = ", ".join(f"'{entry.name}'" for entry in entries)
        raise DataError(
            f"folders in '{root}' are named like splits, not like classes: {names}; name splits exactly train/ and "
            "val/ (or validation/), or give one folder of class folders to be split."
        )
    real: dict[tuple[int, int], Path] = {}
    for entry in entries:
        other = real.setdefault(_identity(entry), entry)
        if other is not entry:
            raise DataError(
                f"class folders '{other.name}' and '{entry.name}' in '{root}' are the same folder; remove one link."
            )
    return entries


def _require_folder(folder: str | Path) -> None:
    if not Path(folder).is_dir():
        raise DataError(f"data folder '{folder}' does not exist; give a folder of class folders with --data.")


def _imageless(root: Path, folders: Mapping[str, Mapping[str, int]]) -> DataError:
    """Return the error of class folders without images: an empty one is mostly a broken copy."""
    shown = ", ".join(
        f"'{name}' ({suffixes_in_words(others) if others else 'empty'})"
        for name, others in list(folders.items())[:_SHOWN]
    )
    more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
    return DataError(
        f"class folders without images in '{root}': {shown}{more}. Images are {_kinds()}; convert the files, "
        f"or remove the folder or hide it with a leading dot ({_README})."
    )


_README = "see README, 'Your own data'"


def _kinds() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def suffixes_in_words(counts: Mapping[str, int]) -> str:
    """Return ``3 .avif, 1 .txt``, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in ranked[:_SHOWN])


def _identity(folder: Path) -> tuple[int, int]:
    try:
        stat = folder.stat()
    except OSError as error:
        raise _unseen(error, folder) from error
    return stat.st_dev, stat.st_ino


def _unseen(error: OSError, path: Path) -> DataError:
    return DataError(f"folder {error.filename or path} cannot be listed ({error.strerror}); make it readable.")


def _walk(top: Path, root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder from ``top`` down and the names of its files, both sorted, hidden ones left out.

    Links are followed, but each real folder comes once, and links to ``root`` or to what it lies in are not entered:
    a link loop would multiply images, and give a class the images of others.

    Raises:
        DataError: a folder that cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise _unseen(error, top)

    seen = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    for name, folders, files in os.walk(top, followlinks=True, onerror=fail):
        folder = Path(name)
        identity = _identity(folder)
        if identity in seen and not folder == top == root:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        yield folder, sorted(file for file in files if not file.startswith("."))


def list_splits(source: str, left_out: Set[str] = frozenset()) -> tuple[Listing, Listing | None]:
    """Return the listing of a folder source, and of its held-out split when it has one.

    Args:
        source: the folder.
        left_out: files to do as if they were not there, as ``path_in`` writes them.

    Raises:
        DataError: missing folder, one class only, a held-out class that training does not have, or a class without
            images.
    """
    _require_folder(source)
    root = Path(source)
    val_root = next((root / name for name in _VAL_NAMES if (root / name).is_dir()), None)
    has_train = (root / "train").is_dir()
    if has_train != (val_root is not None):
        have, lack = ("train/", "val/ or validation/") if has_train else (f"{getattr(val_root, 'name', '')}/", "train/")
        raise DataError(
            f"data folder '{source}' has {have} but no {lack}; add it, or give one folder of class folders to be split."
        )
    train = list_class_folder(root / "train" if has_train else root)
    val = list_class_folder(val_root, held_out=True) if val_root else None
    if left_out:
        train = replace(train, files=without(train.files, left_out, train.root, root))
        val = val and replace(val, files=without(val.files, left_out, val.root, root))
        require_each_class(train.classes, train.files, train.root)
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
        val = replace(val, classes=train.classes, files=files)
    else:
        alone = [
            train.classes[label] for label, count in Counter(label for _, label in train.files).items() if count < 2
        ]
        if alone:
            raise DataError(f"class '{alone[0]}' has one image, too few to hold one out; add images or a val/ folder.")
    return train, val


def _can_be_label(name: str) -> bool:
    """Return whether a folder's name can be a line of the bundle's labels.txt."""
    return not any(sign in "\r\n" or "\ud800" <= sign <= "\udfff" for sign in name)


def tree_digest(root: Path) -> str:
    """Return SHA-256 over relative path, size and modification time of every file below ``root``, hidden ones left out.

    Raises:
        DataError: a file or folder that cannot be looked at, such as a link to nothing.
    """
    digest = hashlib.sha256()
    for folder, names in _walk(root, root):
        for name in names:
            path = folder / name
            try:
                stat = path.stat()
            except OSError as error:
                raise DataError(f"file {path} cannot be looked at ({error.strerror}); replace or remove it.") from error
            entry = f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            digest.update(os.fsencode(entry))  # file names need not be UTF-8
    return digest.hexdigest()


@lru_cache(maxsize=4)
def data_digest(config: DataConfig) -> str:
    """Return what changes when the images change; cheap enough to ask before every run.

    Of a prefixed source that is not read from a local folder, only its name, splits, sizes and the package that reads
    it are known here: other images under the same name (a newer revision on a hub, shards replaced behind a URL, a
    cleared cache) are not noticed.
    """
    kind = kind_of(config.source)
    parts: list[Any] = [kind, config.source, config.root]
    if kind == EMBEDDED:
        parts.append(version("scikit-learn"))  # the pixels ship with it
    else:
        root = Path(config.source if kind == "folder" else config.root or "")
        if kind == "folder":
            _require_folder(config.source)
        if root.is_dir() and (kind == "folder" or config.root):
            parts.append(tree_digest(root))
        else:
            parts += [*config.splits, config.train_samples, config.val_samples, _reader_version(config.source)]
        if config.labels:
            try:
                parts.append(hashlib.sha256(Path(config.labels).read_bytes()).hexdigest())
            except OSError as error:
                raise DataError(
                    f"labels file '{config.labels}' cannot be read ({error.strerror}); check data.labels."
                ) from error
    return fingerprint(parts)


def _reader_version(source: str) -> str | None:
    """Return the version of the package that reads a prefixed source; None if it is not installed."""
    try:
        return version(PACKAGES[source.partition("/")[0].lower()])
    except PackageNotFoundError:
        return None
