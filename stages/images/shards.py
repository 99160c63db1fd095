"""WebDataset shards on this machine as a split of random access: each image once, in any number of processes.

timm reads shards in order and gives each process and loader a share of the files, so that what is seen depends on how
many of them there are. A tar file that lies on a disk can be read at any place, once it is known what lies where.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitcompress.core.errors import DataError
from vitcompress.core.images import as_rgb

_LABEL = "cls"


@dataclass(frozen=True)
class Shard:
    """What lies where in one tar file: its N images with their classes."""

    path: str
    offsets: NDArray[np.int64]
    """``[N]``, bytes from the file's start."""
    sizes: NDArray[np.int64]
    """``[N]``, bytes."""
    labels: NDArray[np.int64]
    """``[N]``, as the file has them."""


class ShardSplit:
    """A split read from indexed shards."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self.ends = np.cumsum([len(shard.labels) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return the image and its class.

        Raises:
            DataError: the shard is gone, or holds no image there.
        """
        number = int(np.searchsorted(self.ends, index, side="right"))
        shard = self.shards[number]
        position = index - (int(self.ends[number - 1]) if number else 0)
        with Path(shard.path).open("rb") as file:
            file.seek(int(shard.offsets[position]))
            content = file.read(int(shard.sizes[position]))
        return as_rgb(content, f"image {position} of {shard.path}"), int(shard.labels[position])

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return classes of all images, ``[N]``."""
        return np.concatenate([shard.labels for shard in self.shards])


def indexed(reader: Any, split: str) -> ShardSplit | None:
    """Return the split of timm's webdataset reader by random access; None where its shards can only be streamed.

    Args:
        reader: timm's, which has read the names of the shards and where labels are.
        split: its name, for messages.

    Raises:
        DataError: a shard is missing or damaged, an image has no class, or there are not as many images as the
            shards' description says.
    """
    paths = [os.path.join(reader.root, name) for name in reader.split_info.filenames]  # noqa: PTH118 - it may be a URL
    if reader.remap_class or reader.target_keys or not all(_is_local(path) for path in paths):
        return None
    field = reader.target_key or reader.split_info.alt_label
    kinds = tuple(reader.input_key.lower().split(";"))
    states = [(path, Path(path).stat()) for path in paths]
    found = ShardSplit([_index(path, state.st_mtime_ns, state.st_size, kinds, field) for path, state in states])
    said = reader.split_info.num_samples
    if said and said != len(found):
        raise DataError(
            f"the {len(paths)} shards of split '{split}' hold {len(found):,} images, and their description says "
            f"{said:,}; bring the missing shards, or correct num_samples in _info.json."
        )
    return found


def _is_local(path: str) -> bool:
    """Return whether this is a tar file on this machine that is not compressed.

    Raises:
        DataError: it is a path of this machine, and there is no file.
    """
    if "://" in path or path.startswith("pipe:"):
        return False
    if not Path(path).is_file():
        raise DataError(f"shard '{path}' does not exist; check data.root and the names of the shards.")
    with Path(path).open("rb") as file:
        return file.read(262)[257:] == b"ustar"


@lru_cache(maxsize=100_000)
def _index(path: str, changed: int, size: int, kinds: tuple[str, ...], field: str) -> Shard:
    """Return where the images of a shard lie; a file of this size and time of change is read once in a process."""
    rows = []
    try:
        with tarfile.open(path, "r:") as tar:
            for key, members in _samples(tar):
                image = next((members[kind] for kind in kinds if kind in members), None)
                if image is None:
                    raise DataError(f"sample '{key}' of {path} has no image ({', '.join(kinds)}); make the shard anew.")
                label = _label(tar, members, key, path, field)
                if label >= 0:  # timm's convention: an image of class -1 takes no part
                    rows.append((image.offset_data, image.size, label))
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"shard '{path}' cannot be read ({error}); copy it anew.") from error
    if rows and rows[-1][0] + rows[-1][1] > size:
        raise DataError(f"shard '{path}' is cut off; copy it anew.")
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Shard(path, table[:, 0], table[:, 1], table[:, 2])


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield the files of each sample by suffix: neighbours whose names are the same up to the first dot."""
    key = ""
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        stem, dot, suffix = name.partition(".")
        if not member.isreg() or not dot or not stem:
            continue
        this = f"{folder}/{stem}" if folder else stem
        if this != key and members:
            yield key, members
            members = {}
        key = this
        members[suffix.lower()] = member
    if members:
        yield key, members


def _label(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], key: str, path: str, field: str) -> int:
    """Return a sample's class: of its .cls file, or of a field of its .json file."""
    suffix = "json" if field else _LABEL
    file = tar.extractfile(members[suffix]) if suffix in members else None
    content = file.read() if file else None
    try:
        if content is not None:
            return int(json.loads(content)[field] if field else content)
    except (ValueError, KeyError, TypeError):
        pass
    what = f"a whole number '{field}' in its .json" if field else "a class (a .cls file with a whole number)"
    raise DataError(f"sample '{key}' of {path} has not {what}; make the shard anew.")
