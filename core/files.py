"""Files that are either whole or absent, and that never leave their folder."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import BaseModel

from vitcompress.core.errors import UsageError
from vitcompress.core.record import FileRef

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk on which nothing more can be written."""
_REFUSALS = (*FULL_DISK, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
"""Errors of the disk or the system, whatever was to be written or read."""


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` so that a reader, or a crash at any moment, sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes 0600; a bundle is meant to be read by others
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def unwritable(error: OSError) -> str:
    """Return why ``write_atomic`` could not write, in words for the user."""
    # Making a folder where a file is gives "File exists", which sounds as if writing over it were the trouble.
    return "a file is where a folder is needed" if isinstance(error, FileExistsError) else str(error.strerror)


def refused_write(error: BaseException) -> OSError | None:
    """Return the system's own error (a full disk, no permission) that a library's error was raised from, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _REFUSALS:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def inside(folder: Path, relative: str) -> Path:
    """Return ``folder / relative``; a UsageError is raised if that is outside of ``folder``, links followed."""
    target = (folder / relative).resolve()
    if Path(relative).is_absolute() or not target.is_relative_to(folder.resolve()):
        raise UsageError(f"path '{relative}' leaves its folder {folder}; only paths inside it are allowed.")
    return target


def below(folder: Path, relative: str) -> Path:
    """Return ``folder / relative``; a UsageError is raised if that is outside of ``folder`` by its name.

    Links (of a cache or a volume) may lead anywhere: for files whose content is checked by digest.
    """
    foreign = PureWindowsPath(relative)  # knows both separators, and drives
    if Path(relative).is_absolute() or foreign.anchor or ".." in foreign.parts:
        raise UsageError(f"path '{relative}' leaves its folder {folder}; only paths inside it are allowed.")
    return folder / relative


def reference(path: Path, root: Path) -> FileRef:
    """Return a file's path relative to ``root``, its SHA-256 and its size."""
    return FileRef(path=path.relative_to(root).as_posix(), sha256=sha256_of(path), bytes=path.stat().st_size)


def is_intact(ref: FileRef, root: Path) -> bool:
    """Return whether the referenced file is still there with the bytes it was recorded with."""
    path = inside(root, ref.path)
    return path.is_file() and path.stat().st_size == ref.bytes and sha256_of(path) == ref.sha256


def references_in(value: Any) -> list[FileRef]:
    """Return every FileRef inside a record, however deeply nested."""
    if isinstance(value, FileRef):
        return [value]
    if isinstance(value, BaseModel):
        return references_in([getattr(value, name) for name in type(value).model_fields])
    if isinstance(value, dict):
        return references_in(list(value.values()))
    if isinstance(value, (list, tuple)):
        return [ref for item in value for ref in references_in(item)]
    return []
