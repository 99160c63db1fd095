"""Files that are either whole or absent, and that never leave their folder; JSON files that may be anything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import BaseModel

from vitcompress.core.errors import UsageError
from vitcompress.core.record import FileRef

_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
    | {errno.EMFILE, errno.ENFILE}
)
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


@contextmanager
def writing(what: str, remedy: str = "a folder you may write to with --output") -> Iterator[None]:
    """Within the block files are written; a UsageError is raised where ``what`` they make cannot be written."""
    try:
        yield
    except OSError as error:
        # Making a folder where a file is gives "File exists", which sounds as if writing over it were the trouble.
        why = "a file is where a folder is needed" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"{what} cannot be written ({why}); give {remedy}.") from error


def refused_write(error: BaseException) -> OSError | None:
    """Return the system's own error (a full disk, no permission) that a library's error was raised from, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _REFUSALS:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def inside(folder: Path, relative: str) -> Path:
    """Return ``folder / relative``; a UsageError is raised if that is outside of ``folder`` by its name.

    Links (of a cache or a volume) may lead anywhere: what is read is checked by digest.
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


def absent_folders(root: Path) -> list[Path]:
    """Return ``root`` and those of its parents that do not exist, deepest first."""
    return [folder for folder in (root, *root.parents) if not folder.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders, in this order, that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def read_object(file: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file; ``what`` it should be and the ``remedy`` if it is damaged are for the message.

    A UsageError is raised if it is no file, cannot be read, or holds no JSON object.
    """
    try:
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "no regular file" if file.exists() else "missing"
            raise UsageError(f"{what} '{file}' is {kind}; give a JSON file.")
        content = json.loads(file.read_bytes().decode(), parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageError(f"{what} '{file}' cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:120]
        raise UsageError(f"{what} '{file}' is damaged or no JSON ({said}); {remedy}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{what} '{file}' holds a {type(content).__name__}, not a JSON object; {remedy}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
