"""Folders from top to bottom: their files in a fixed order, and a digest that changes with them (torch-free)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from vitcompress.core.errors import DataError


def walk(top: Path, root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder from ``top`` down and the names of its files, both sorted, hidden ones left out.

    Links are followed, but each real folder comes once, and links to ``root`` or to what it lies in are not entered:
    a link loop would multiply images, and give a class the images of others. A DataError is raised if a folder cannot
    be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    def identity(folder: Path) -> tuple[int, int]:
        stat = folder.stat()
        return stat.st_dev, stat.st_ino

    try:
        seen = {identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
        for name, folders, files in os.walk(top, followlinks=True, onerror=fail):
            folder = Path(name)
            if identity(folder) in seen and not folder == top == root:
                folders.clear()
                continue
            seen.add(identity(folder))
            folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
            yield folder, sorted(file for file in files if not file.startswith("."))
    except OSError as error:
        raise unlisted(error, top) from error


def unlisted(error: OSError, folder: Path) -> DataError:
    """Return the error for a folder that cannot be listed."""
    return DataError(f"folder {error.filename or folder} cannot be listed ({error.strerror}); make it readable.")


def tree_digest(root: Path) -> str:
    """Return SHA-256 over relative path, size and modification time of every file below ``root``, hidden ones left out.

    A file or folder that cannot be looked at, such as a link to nothing, is a DataError.
    """
    digest = hashlib.sha256()
    for folder, names in walk(root, root):
        for name in names:
            path = folder / name
            try:
                stat = path.stat()
            except OSError as error:
                raise DataError(f"file {path} cannot be looked at ({error.strerror}); replace or remove it.") from error
            entry = f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            digest.update(os.fsencode(entry))  # file names need not be UTF-8
    return digest.hexdigest()
