"""Files of a folder source by name, and doing without some of them (torch-free)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from vitcompress.core.errors import DataError

_SHOWN = 8


@dataclass(frozen=True)
class File:
    """An image file of a folder source."""

    path: Path
    name: str
    """As of ``path_in``."""
    label: int
    held_out: bool


@dataclass(frozen=True)
class LeftOut:
    """Files of a folder source to do without, by ``File.name``."""

    unusable: frozenset[str] = frozenset()
    """As if they were not there."""
    from_training: frozenset[str] = frozenset()
    """Not trained on; the held-out images stay the same ones."""


NOTHING = LeftOut()


def path_in(source: Path, root: Path, file: str) -> str:
    """Return the path of a listing's file inside ``source``, with escapes for letters that are not UTF-8."""
    return os.fsencode((root / file).relative_to(source).as_posix()).decode(errors="backslashreplace")


def without(
    files: Iterable[tuple[str, int]], left_out: Set[str], root: Path, source: Path
) -> tuple[tuple[str, int], ...]:
    """Return a listing's files at ``root`` (path, class index) without those that are left out."""
    return tuple(item for item in files if path_in(source, root, item[0]) not in left_out)


def require_each_class(classes: Sequence[str], files: Iterable[tuple[str, int]], root: Path) -> None:
    """Refuse what leaves a class nothing to train on.

    Raises:
        DataError: by the names of the classes.
    """
    left = {label for _, label in files}
    gone = [name for label, name in enumerate(classes) if label not in left]
    if gone:
        shown = ", ".join(f"'{name}'" for name in gone[:_SHOWN]) + (", ..." if len(gone) > _SHOWN else "")
        raise DataError(
            f"no training image is left of class {shown} in '{root}': all of them are left out (data.on_bad_image, "
            "data.on_duplicates); repair or add images, or remove the class."
        )
