"""The same file twice, byte for byte: trained on and judged by, or under two classes.

Most files are told apart by size and their last bytes, so that not all of them are read whole.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vitcompress.core.errors import DataError
from vitcompress.core.files import sha256_of
from vitcompress.core.machine import usable_cores
from vitcompress.stages.images.splits import UNLABELLED, File

_TAIL = 4096
"""Bytes; the beginnings of files that one program wrote are often the same."""
_SHOWN = 3
Pairs = list[tuple[File, File]]


@dataclass(frozen=True)
class Duplicates:
    """What was found: files and one twin of each, by name."""

    held_out: Pairs = field(default_factory=list)
    """Held-out files and a training file with the same bytes."""
    training: Pairs = field(default_factory=list)
    """Training files and a held-out file with the same bytes."""
    contradictory: Pairs = field(default_factory=list)
    """Training files and one of another class with the same bytes."""


def find_duplicates(files: Iterable[File]) -> Duplicates:
    """Compare every file with every other; a DataError is raised if one cannot be read."""
    groups = [list(files)]
    try:
        for key in (lambda file: file.path.stat().st_size, _tail, lambda file: sha256_of(file.path)):
            groups = [part for group in groups for part in _split(group, key)]
    except OSError as error:
        raise DataError(
            f"image {error.filename} cannot be read ({error.strerror}); replace or remove the file."
        ) from error
    found = Duplicates()
    for group in groups:
        judged, trained = ([file for file in group if file.held_out is held] for held in (True, False))
        if judged and trained:
            found.held_out.extend((file, trained[0]) for file in judged)
            found.training.extend((file, judged[0]) for file in trained)
        for file in trained:
            other = next((other for other in trained if other.label not in (file.label, UNLABELLED)), None)
            if other is not None and file.label != UNLABELLED:
                found.contradictory.append((file, other))
    for pairs in (found.held_out, found.training, found.contradictory):
        pairs.sort(key=lambda pair: pair[0].name)
    return found


def _split(group: Sequence[File], key: Callable[[File], Hashable]) -> list[list[File]]:
    """Return the parts of a group that share a key, of those in which a twin would matter."""
    if not _matters(group):
        return []
    parts: dict[Hashable, list[File]] = defaultdict(list)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for file, found in zip(group, pool.map(key, group), strict=True):
            parts[found].append(file)
    return [part for part in parts.values() if _matters(part)]


def _matters(group: Sequence[File]) -> bool:
    """Return whether both splits, or two classes of training, are in the group."""
    return len({file.held_out for file in group}) > 1 or len({file.label for file in group if not file.held_out}) > 1


def _tail(file: File) -> bytes:
    with file.path.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL))
        return hashlib.blake2b(opened.read(), digest_size=16).digest()


def pairs_in_words(pairs: Pairs) -> str:
    """Return the first few pairs as ``val/a/1.png = train/a/7.png, ...``."""
    words: dict[frozenset[str], str] = {}
    for file, twin in pairs:
        words.setdefault(frozenset((file.name, twin.name)), f"{file.name} = {twin.name}")
    return ", ".join([*words.values()][:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")
