"""WebDataset shards on this machine, or copied to it, by random access: each image once, in any number of processes.

timm reads shards in order and gives each process and loader a share of the files, so that what is seen depends on how
many of them there are. A tar file that lies on a disk can be read at any place, once it is known what lies where.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from vitcompress.core.errors import DataError
from vitcompress.core.images import as_rgb
from vitcompress.stages.images.splits import ListedSplit

Part = tuple[str, int, int]
"""Where an image is: the path of its shard, its place and its size in bytes."""


def indexed(reader: Any, split: str, cache: str | None = None) -> ListedSplit | None:
    """Return the split of timm's webdataset reader by random access; None where it can only be streamed.

    Shards behind a URL are first copied to the folder ``cache``, where one is given. A DataError is raised if a shard
    is missing, damaged or cannot be copied, an image has no class, or there are not as many images as the shards'
    description says.
    """
    paths = [os.path.join(reader.root, name) for name in reader.split_info.filenames]  # noqa: PTH118 - may be a URL
    other_labels = reader.remap_class or reader.target_keys or reader.target_key or reader.split_info.alt_label
    if other_labels:
        return None
    if cache is not None:
        paths = [_copied(path, Path(cache)) if _is_url(path) else path for path in paths]
    if not all(_is_local(path) for path in paths):
        return None
    kinds = tuple(reader.input_key.lower().split(";"))
    items = [item for path in paths for item in _index(path, Path(path).stat().st_mtime_ns, kinds)]
    said = reader.split_info.num_samples
    if said and said != len(items):
        raise DataError(
            f"the {len(paths)} shards of split '{split}' hold {len(items):,} images, and their description says "
            f"{said:,}; bring the missing shards, or correct num_samples in _info.json."
        )
    return ListedSplit(items, open_part, read=read_part)


def open_part(part: Part) -> Image.Image:
    """Return the image at a place in a shard; a DataError is raised if it cannot be read."""
    try:
        content = read_part(part)
    except OSError as error:
        raise DataError(f"shard '{part[0]}' cannot be read ({error.strerror}); put it back.") from error
    return as_rgb(content, f"the image at byte {part[1]} of {part[0]}")


def read_part(part: Part) -> bytes:
    """Return the bytes at a place in a shard; an OSError is raised if the shard cannot be read."""
    path, offset, size = part
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _is_url(path: str) -> bool:
    return "://" in path or path.startswith("pipe:")


def _copied(url: str, folder: Path) -> str:
    """Return the path of a shard's copy, made now where there is none; a DataError is raised if it cannot be."""
    from webdataset.cache import download

    # Shards of two datasets have the same names.
    target = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{url.rpartition('/')[2]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # all processes of a run ask for it at once
            if not target.is_file():
                download(url, str(target))
    except Exception as error:  # the libraries behind the schemes raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"shard '{url}' cannot be copied to {folder} ({reason}); check the URL, and data.cache for room and "
            "permissions."
        ) from error
    return str(target)


def _is_local(path: str) -> bool:
    """Return whether this is a tar file on this machine that is not compressed; a DataError if the file is gone."""
    if _is_url(path):
        return False
    if not Path(path).is_file():
        raise DataError(f"shard '{path}' does not exist; check data.root and the names of the shards.")
    with Path(path).open("rb") as file:
        return file.read(262)[257:] == b"ustar"


@lru_cache(maxsize=100_000)
def _index(path: str, changed: int, kinds: tuple[str, ...]) -> list[tuple[Part, int]]:
    """Return place and class of each image of a shard; once a process for a time of change."""
    items = []
    try:
        with tarfile.open(path, "r:") as tar:
            for sample, group in groupby(filter(_is_part, tar), lambda member: _name_of(member)[0]):
                members = {_name_of(member)[1]: member for member in group}
                image = next((members[kind] for kind in kinds if kind in members), None)
                if image is None:
                    raise _incomplete(sample, path, f"no image ({', '.join(kinds)})")
                file = tar.extractfile(members["cls"]) if "cls" in members else None
                try:
                    label = int(file.read() if file else "")
                except ValueError:
                    raise _incomplete(sample, path, "no class (a .cls file with a whole number)") from None
                if label >= 0:  # timm's convention: an image of class -1 takes no part
                    items.append(((path, image.offset_data, image.size), label))
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"shard '{path}' cannot be read ({error}); copy it anew.") from error
    return items


def _is_part(member: tarfile.TarInfo) -> bool:
    name = member.name.rpartition("/")[2]
    return member.isreg() and "." in name and not name.startswith(".")


def _name_of(member: tarfile.TarInfo) -> tuple[str, str]:
    """Return a file's sample (its path up to the first dot of its name) and its suffix."""
    folder, slash, name = member.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _incomplete(sample: str, path: str, what: str) -> DataError:
    return DataError(f"sample '{sample}' of {path} has {what}; make the shard anew.")
