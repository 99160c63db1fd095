"""Before a cache is filled or read: hold it, drop what is stale or damaged, and see that the rest will fit."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.files import write_atomic
from vitcompress.core.fingerprint import canonical
from vitcompress.core.machine import usable_cores
from vitcompress.stages.distill.cache.chunks import Part
from vitcompress.stages.distill.cache.store import Store

_KEY_FOLDER = re.compile(r"[0-9a-f]{16}")

Say = Callable[[str], None]


@contextmanager
def locked(store: Store, say: Say, stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the key against other runs, waiting while one of them fills it.

    Raises:
        UsageError: the folder cannot be written.
        RunInterrupted: stopped while waiting.
    """
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store.folder / ".lock")
        _wait_for(lock, f"teacher cache: another run is filling {store.folder}; waiting for it", say, stop)
    except OSError as error:
        raise UsageError(
            f"the teacher cache {store.folder} cannot be written ({error.strerror}); "
            "give a folder you may write to with distill.cache.folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _wait_for(lock: FileLock, waiting: str, say: Say, stop: Callable[[], bool]) -> None:
    try:
        lock.acquire(timeout=0)
        return
    except Timeout:
        say(waiting)
    while True:
        try:
            lock.acquire(timeout=0.5)
            return
        except Timeout:
            if stop():
                raise RunInterrupted("stopped while waiting for another run's teacher cache.") from None


def prepare(store: Store, say: Say) -> None:
    """Under the lock: drop what is stale or damaged, and check that the rest will fit.

    Raises:
        UsageError: the cache would exceed ``max_gb`` or the disk.
    """
    if not store.shared:
        _remove_stale(store, say)
    _claim_key(store, say)
    for part in store.parts:
        _clean(store, part, say)
    _verify(store, say)
    require_room(store, store.folder)


def _remove_stale(store: Store, say: Say) -> None:
    stale = _other_keys(store)
    for path in stale:
        shutil.rmtree(path)
    if stale:
        say(
            f"teacher cache: removed {_names(path.name for path in stale)}, of another teacher, other views or settings"
        )


def _claim_key(store: Store, say: Say) -> None:
    path = store.folder / "key.json"
    wanted = json.loads(canonical(store.key))
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        found = None
    if found == wanted:
        return
    for manifest in sorted(store.folder.glob("*/manifest.json")):  # under a key that nobody can tell any more
        say(f"teacher cache: {manifest.parent.name} is computed again, its key.json is damaged or lost")
        shutil.rmtree(manifest.parent)
    write_atomic(path, json.dumps(wanted, indent=2, sort_keys=True) + "\n")


def _clean(store: Store, part: Part, say: Say) -> None:
    folder = store.folder / part.name
    if (folder / "manifest.json").is_file() and store.stored_manifest(part) is None:
        say(f"teacher cache: {part.name} is computed again, its manifest is damaged or of another version")
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(".*.safetensors.*"):  # of a process that was killed
        leftover.unlink()


def _verify(store: Store, say: Say) -> None:
    """Compare every chunk's bytes with its SHA-256; a damaged one is forgotten, and so computed again."""
    started, total = time.monotonic(), 0
    for part in store.parts:
        manifest = store.manifest(part)
        total += sum(record.bytes for record in manifest.chunks.values())
        with ThreadPoolExecutor(min(8, usable_cores())) as pool:  # hashing releases the interpreter lock
            intact = list(pool.map(lambda item, name=part.name: store.is_intact(name, *item), manifest.chunks.items()))
        damaged = [index for index, good in zip(manifest.chunks, intact, strict=True) if not good]
        if damaged:
            say(
                f"teacher cache: {part.name} chunk {_names(f'{index:06d}' for index in damaged)} damaged or missing, "
                "computed again"
            )
            store.forget(part, damaged)
    if total:
        say(f"teacher cache: {_gb(total)} verified in {time.monotonic() - started:.1f} s")


def require_room_for(store: Store, new_bytes: int) -> None:
    """Refuse ``new_bytes`` more where the folder has meanwhile grown too large for them (other runs may share it).

    Raises:
        UsageError: with what is used and what the limit is.
    """
    used = _size(store.base)
    if used + new_bytes > store.config.max_gb * 1e9:
        raise UsageError(
            f"the teacher caches in {store.base} have grown to {_gb(used)}, and the next file would take them over "
            f"distill.cache.max_gb = {store.config.max_gb:g}; raise it, or delete caches of other runs there."
        )


def require_room(store: Store, disk: Path) -> None:
    """Refuse a cache that would exceed ``max_gb``, or what is free on the disk that the folder ``disk`` is on.

    Raises:
        UsageError: with what it would take and what the limit is.
    """
    need = store.dense_need()
    if not need:
        return
    own, used = _size(store.folder), _size(store.base)
    free = shutil.disk_usage(disk).free
    others = _other_keys(store)
    what = (
        f"the teacher cache would take up to {_gb(own + need)} ({store.views} views of {store.images} images: "
        f"{', '.join(store.by_name)}; {_gb(own)} is there)"
    )
    if others:
        what += f" beside {_gb(used - own)} of other caches ({_names(path.name for path in others)})"
    change = (
        f"Lower distill.views, use fewer distill.features, {'delete other caches, ' if others else ''}"
        "{}, or set distill.views=0 for the live teacher."
    )
    if used + need > store.config.max_gb * 1e9:
        more = change.format("raise distill.cache.max_gb")
        raise UsageError(f"{what}, and distill.cache.max_gb = {store.config.max_gb:g} allows less. {more}")
    if need > free:
        more = change.format("name a folder on a larger disk with distill.cache.folder")
        raise UsageError(f"{what}, and the disk of {store.base} has {_gb(free)} free. {more}")


def _other_keys(store: Store) -> list[Path]:
    folders = (path for path in store.base.iterdir() if path.is_dir() and _KEY_FOLDER.fullmatch(path.name))
    return sorted(path for path in folders if path != store.folder)


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; those that another run deletes meanwhile count nothing."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(directory) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _names(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")
