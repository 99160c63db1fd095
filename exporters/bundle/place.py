"""Putting a finished draft where the old bundle is, and keeping what others put beside that one."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import FULL_DISK

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_AT_FDCWD = -100
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk and a place that may not be written to into one sentence about ``folder``.

    Raises:
        UsageError: that sentence.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UsageError(
                f"the disk of '{folder.parent}' is full ({error.strerror}), so no bundle was written and an older one "
                "is as it was; free some space, or give a folder on another disk."
            ) from error
        if error.errno in _REFUSED:
            raise UsageError(
                f"the bundle cannot be written to '{folder}' ({error.strerror}: {error.filename or folder.parent}); "
                "make that folder writable, or give another one."
            ) from error
        raise


def check_writable(folder: Path) -> None:
    """Refuse to replace a bundle that its owner made read-only.

    Raises:
        UsageError: ``folder`` is there and may not be written to.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise UsageError(
            f"the bundle '{folder}' is read-only; make it writable (chmod u+w '{folder}'), or give another folder."
        )


def files_in(folder: Path) -> Iterator[str]:
    """Yield every file, link and empty folder below ``folder``, relative to it; links are not followed."""
    for root, folders, files in os.walk(folder):
        base = Path(root)
        linked = [name for name in folders if (base / name).is_symlink()]
        empty = [name for name in folders if name not in linked and not any((base / name).iterdir())]
        for name in (*files, *linked, *empty):
            yield (base / name).relative_to(folder).as_posix()


def carry_over(old: Path, draft: Path, is_replaced: Callable[[str], bool]) -> None:
    """Copy into ``draft`` what is in ``old`` and is neither replaced nor in ``draft`` already."""
    for name in files_in(old):
        source, target = old / name, draft / name
        if is_replaced(name) or os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            target.mkdir()
        else:
            shutil.copy2(source, target, follow_symlinks=False)


def swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` where ``folder`` is; an older ``folder`` ends up at ``draft``."""
    if not folder.exists():
        draft.rename(folder)
        return
    exchange = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if exchange and exchange(_AT_FDCWD, os.fsencode(draft), _AT_FDCWD, os.fsencode(folder), _EXCHANGE) == 0:
        return
    # No atomic exchange on this system or file system: two renames, and the first is undone if the second fails.
    aside = draft.with_name(f"{draft.name}.old")
    folder.rename(aside)
    try:
        draft.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    aside.rename(draft)


def remove_draft(draft: Path) -> None:
    """Delete the unfinished new bundle, or after the swap the old one, folders without write permission included."""
    for root, _, _ in os.walk(draft):
        if not os.access(root, os.W_OK):
            Path(root).chmod(stat.S_IRWXU)
    shutil.rmtree(draft, ignore_errors=True)
