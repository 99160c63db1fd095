"""Before a cache is filled or read: hold it, drop what is stale or damaged, and see that the rest will fit."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from rich.filesize import decimal

from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.files import is_intact, write_atomic
from vitcompress.core.machine import usable_cores
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.models.checkpoint import some

_KEY_FOLDER = re.compile(r"[0-9a-f]{16}")

Say = Callable[[str], None]


@contextmanager
def locked(store: Store, say: Say, stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the key against other runs, waiting while one of them fills it.

    Raises:
        UsageError: the folder cannot be written.
        RunInterrupted: stopped while waiting.
    """
    lock = FileLock(store.folder / ".lock")
    seconds = 0.0
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=seconds)
            except Timeout:
                if not seconds:
                    say(f"teacher cache: another run is filling {store.folder}; waiting for it")
                elif stop():
                    raise RunInterrupted("stopped while waiting for another run's teacher cache.") from None
                seconds = 0.5
    except OSError as error:
        raise UsageError(
            f"the teacher cache {store.folder} cannot be written ({error.strerror}); "
            "give a folder you may write to with distill.cache.folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def prepare(store: Store, say: Say) -> None:
    """Drop what is stale or damaged, and check that the rest will fit; the lock is held.

    Raises:
        UsageError: the cache would exceed ``max_gb`` or the disk.
    """
    stale = [] if store.config.folder else _other_keys(store)
    for path in stale:
        shutil.rmtree(path)
    if stale:
        say(
            f"teacher cache: removed {some([path.name for path in stale])}, of another teacher, other views or settings"
        )
    write_atomic(store.folder / "key.json", json.dumps(store.key, indent=2, sort_keys=True) + "\n")
    for leftover in store.folder.glob("*/.*"):  # of a process that was killed
        leftover.unlink()
    _verify(store, say)
    require_room(store, store.folder)


def _verify(store: Store, say: Say) -> None:
    """Compare every file's bytes with its SHA-256; a damaged one is forgotten, and so computed again."""
    started, total = time.monotonic(), 0
    for part in store.parts:
        complete = store.complete(part)
        total += sum(record.bytes for record in complete.values())
        with ThreadPoolExecutor(min(8, usable_cores())) as pool:  # hashing releases the interpreter lock
            intact = list(pool.map(lambda record: is_intact(record, store.folder), complete.values()))
        damaged = [index for index, good in zip(complete, intact, strict=True) if not good]
        for index in damaged:
            store.forget(part, index)
        if damaged:
            numbers = some([f"{index:06d}" for index in damaged])
            say(f"teacher cache: {part.name} chunk {numbers} damaged or missing, computed again")
    if total:
        say(f"teacher cache: {decimal(total)} verified in {time.monotonic() - started:.1f} s")


def require_room(store: Store, disk: Path, need: int | None = None) -> None:
    """Refuse a cache that would exceed ``max_gb``, or what is free on a disk.

    Args:
        store: the cache; other runs may fill caches beside it.
        disk: a folder on the disk.
        need: bytes that are still to be written; None for those of all that is missing.

    Raises:
        UsageError: with what it would take and what the limit is.
    """
    need = store.dense_need() if need is None else need
    if not need:
        return
    own, used = _size(store.folder), _size(store.base)
    others = [path.name for path in _other_keys(store)]
    what = (
        f"the teacher cache would take up to {decimal(own + need)} ({store.views} views of {store.images} images: "
        f"{', '.join(store.by_name)}; {decimal(own)} is there)"
    )
    if others:
        what += f" beside {decimal(used - own)} of other caches ({some(others)})"
    free, limit = shutil.disk_usage(disk).free, store.config.max_gb
    if used + need > limit * 1e9:
        why, change = f"distill.cache.max_gb = {limit:g} allows less", "raise distill.cache.max_gb"
    elif need > free:
        why = f"the disk of {store.base} has {decimal(free)} free"
        change = "name a folder on a larger disk with distill.cache.folder"
    else:
        return
    delete = "delete other caches, " if others else ""
    raise UsageError(
        f"{what}, and {why}. Lower distill.views, use fewer distill.features, {delete}{change}, or set "
        "distill.views=0 for the live teacher."
    )


def _other_keys(store: Store) -> list[Path]:
    folders = (path for path in store.base.iterdir() if path.is_dir() and _KEY_FOLDER.fullmatch(path.name))
    return sorted(path for path in folders if path != store.folder)


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder; those that another run deletes meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
