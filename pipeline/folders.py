"""Folders that a command makes, and takes away again when it comes to nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def absent_folders(root: Path) -> list[Path]:
    """``root`` and those of its parents that do not exist, deepest first."""
    return [folder for folder in (root, *root.parents) if not folder.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders, in this order, that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
