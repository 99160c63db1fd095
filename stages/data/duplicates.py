"""The same file twice: trained on and judged by, or under two classes.

Files are the same when their bytes are; the same picture saved anew is another file here. Most files are told apart by
size and their last bytes, so that not all of them are read whole.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vitcompress.core.errors import DataError
from vitcompress.core.files import sha256_of
from vitcompress.core.machine import usable_cores
from vitcompress.stages.images.splits import File

_TAIL = 4096
"""Bytes; the beginnings of files that one program wrote are often the same."""
_SHOWN = 3


@dataclass(frozen=True)
class Duplicates:
    """What was found; files in pairs of the one meant and its twin."""

    held_out: tuple[tuple[File, File], ...]
    """Held-out files and a training file with the same bytes."""
    training: tuple[tuple[File, File], ...]
    """Training files and a held-out file with the same bytes."""
    contradictory: tuple[tuple[File, File], ...]
    """Training files and one of another class with the same bytes."""


def find_duplicates(files: Iterable[File]) -> Duplicates:
    """Compare every file with every other.

    Raises:
        DataError: a file cannot be read.
    """
    groups = [list(files)]
    for key in (_size, _tail, _content):
        groups = [part for group in groups for part in _split(group, key)]
    held_out, training, contradictory = [], [], []
    for group in groups:
        judged, trained = ([file for file in group if file.held_out is held] for held in (True, False))
        if judged and trained:
            held_out += [(file, trained[0]) for file in judged]
            training += [(file, judged[0]) for file in trained]
        for file in trained:
            other = next((other for other in trained if other.label != file.label), None)
            if other is not None:
                contradictory.append((file, other))
    return Duplicates(
        *(tuple(sorted(pairs, key=lambda pair: pair[0].name)) for pairs in (held_out, training, contradictory))
    )


def _split(group: Sequence[File], key: Callable[[File], Hashable]) -> list[list[File]]:
    """Return the parts of a group that share a key, of those in which a twin would matter."""
    if not _matters(group):
        return []

    def asked(file: File) -> Hashable:
        try:
            return key(file)
        except OSError as error:
            raise DataError(
                f"image {file.path} cannot be read ({error.strerror}); replace or remove the file."
            ) from error

    parts: dict[Hashable, list[File]] = defaultdict(list)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for file, found in zip(group, pool.map(asked, group, chunksize=64), strict=True):
            parts[found].append(file)
    return [part for part in parts.values() if _matters(part)]


def _matters(group: Sequence[File]) -> bool:
    """Return whether both splits, or two classes of training, are in the group."""
    return len({file.held_out for file in group}) > 1 or len({file.label for file in group if not file.held_out}) > 1


def _size(file: File) -> int:
    return file.path.stat().st_size


def _tail(file: File) -> bytes:
    with file.path.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL))
        return hashlib.blake2b(opened.read(), digest_size=16).digest()


def _content(file: File) -> str:
    return sha256_of(file.path)


def pairs_in_words(pairs: Sequence[tuple[File, File]]) -> str:
    """Return the first few pairs as ``val/a/1.png = train/a/7.png, ...``."""
    words: dict[frozenset[str], str] = {}
    for file, twin in pairs:
        words.setdefault(frozenset((file.name, twin.name)), f"{file.name} = {twin.name}")
    once = list(words.values())
    return ", ".join(once[:_SHOWN]) + (", ..." if len(once) > _SHOWN else "")
