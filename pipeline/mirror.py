"""`mirror`: a run kept behind a URL too, while it goes on, and taken from there where its folder is new (torch-free).

Layout: ``URL/files/SHA256`` is a file of the run, ``URL/run.json`` says which files the run has. Files are uploaded
first, under names that nobody uses yet; then the one small object is replaced, which object stores do at once or not at
all. So a machine that is taken away in the middle leaves the older state, complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.rundir import RunDirectory, utc_now
from vitcompress.core.storage import located, reaching, reason_of

_LOOK_SECONDS = 2.0
"""Between two looks at whether the run has a new checkpoint or a finished stage."""
_AGAIN_SECONDS = 30.0
"""Before another try, after one that failed."""
_COPIED = 16 << 20
"""Bytes up to which a file is copied before it is uploaded. Larger ones are linked: nothing is appended to them."""
_SCHEMA = 1
_OWN = ("created", "identity")
"""Entries of state.json by which a run is known."""
_LEFT_OUT = {"cache"}
"""Folders of a run that are computed again: the teacher's answers, which may be larger than all else together."""


@contextmanager
def mirrored(url: str | None, root: Path, console: Console) -> Iterator[None]:
    """Keep the run at ``root``, for the time of the block, behind ``url`` too; None: nothing is done.

    Where the run has not begun here, it is first taken from there. A UsageError is raised if another run is there, or
    a file of this one is damaged; an EnvironmentLacksError if the place cannot be reached, at the beginning, or at the
    end of a block that did not fail.
    """
    if url is None:
        yield
        return
    mirror = Mirror(url.rstrip("/"), root, console)
    mirror.restore()
    mirror.thread.start()
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what ended the run is said in its place
            mirror.close()
        raise
    mirror.close()


class Mirror:
    """One run, and its copy behind a URL."""

    def __init__(self, url: str, root: Path, console: Console) -> None:
        self.url, self.root, self.console = url, root, console
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True, name="mirror")
        self.digests: dict[tuple[str, int, int, int], str] = {}
        """SHA-256 by path, inode, size and time of change."""
        self.there: set[str] = set()
        """Digests of files that were uploaded, or seen there."""

    def restore(self) -> None:
        """Take the run from the URL, if it is there and has not begun here; raises as ``mirrored``."""
        with reaching(f"mirror '{self.url}'", EnvironmentLacksError):
            filesystem, base = located(self.url)
            filesystem.pipe_file(f"{base}/writable", b"-")  # rather known now than at the first checkpoint
            filesystem.rm_file(f"{base}/writable")
            try:
                found = _read(filesystem.cat_file(f"{base}/run.json"), self.url)
            except FileNotFoundError:
                return
        here = RunDirectory(self.root)
        if here.state_path.is_file():
            if found["run"] != _own(here):
                raise UsageError(f"mirror '{self.url}' holds another run than '{self.root}'; give a different URL.")
            return
        if any(path.name != ".lock" for path in self.root.glob("*")):
            return  # which is refused in better words
        files: dict[str, list[Any]] = found["files"]
        draft = self.root.with_name(f".{self.root.name}.restored")
        shutil.rmtree(draft, ignore_errors=True)
        for name in files:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
        with reaching(f"mirror '{self.url}'", EnvironmentLacksError):
            objects = [f"{base}/files/{digest}" for digest, _ in files.values()]
            filesystem.get(objects, [str(draft / name) for name in files])
        if damaged := [name for name, (digest, _) in files.items() if sha256_of(draft / name) != digest]:
            raise UsageError(
                f"mirror '{self.url}' is damaged: {damaged[0]} has another SHA-256; remove what is there, or give a "
                "different URL, to start again."
            )
        shutil.rmtree(self.root, ignore_errors=True)  # at most an empty folder with a lock
        draft.replace(self.root)
        self.there = {digest for digest, _ in files.values()}
        size = decimal(sum(size for _, size in files.values()))
        self._say(f"restored {len(files)} files ({size}) of {found['at']} from {self.url}")

    def close(self) -> None:
        """Wait for what is being uploaded, and upload what is new; an EnvironmentLacksError is raised if it fails."""
        self.closing.set()
        self.thread.join()
        if not RunDirectory(self.root).state_path.is_file():
            return  # refused before it began
        try:
            with reaching(f"the run is in '{self.root}', and its mirror '{self.url}'", EnvironmentLacksError):
                self.upload()
        except EnvironmentLacksError as error:
            self._say(f"warning: {error}")
            raise

    def upload(self) -> None:
        """Bring the files that are not there yet to the URL, then say there which files the run has now."""
        filesystem, base = located(self.url)
        draft = self.root / ".mirror"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            files, new = self._now(draft)
            filesystem.put([str(draft / digest) for digest in new], [f"{base}/files/{digest}" for digest in new])
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        content = {"schema": _SCHEMA, "at": utc_now(), "run": _own(RunDirectory(self.root)), "files": files}
        text = json.dumps(content)
        whole = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "content": text}
        filesystem.pipe_file(f"{base}/run.json", json.dumps(whole).encode())
        self.there = {digest for digest, _ in files.values()}
        filesystem.invalidate_cache()
        old = [path for path in filesystem.find(f"{base}/files") if path.rpartition("/")[2] not in self.there]
        if old:
            filesystem.rm(old)

    def _now(self, draft: Path) -> tuple[dict[str, tuple[str, int]], list[str]]:
        """Return digest and size of the run's files, by path, and the digests of those put into ``draft``: new ones.

        state.json is read first: what it says is done lies there already. Checkpoints come before the metrics, of
        which a run that goes on leaves out what is newer. Where a checkpoint makes room for the next, all is read again.
        """
        files: dict[str, tuple[str, int]] = {}
        new: dict[str, None] = {}
        order = ("state.json", "checkpoints")
        for path in sorted(_files(self.root), key=lambda one: (one[0] not in order, one[0] != order[0], one)):
            source, held = self.root.joinpath(*path), draft / "held"
            try:
                stat = source.stat()
                key = ("/".join(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
                digest = self.digests.get(key)
                if digest is None or digest not in self.there:
                    _hold(source, held, stat.st_size)
                    digest = self.digests[key] = sha256_of(held)
                    held.replace(draft / digest)
                    new |= {} if digest in self.there else {digest: None}
                files[key[0]] = digest, stat.st_size
            except FileNotFoundError:
                if path[0] == order[1]:
                    return self._now(draft)
        return files, [*new]

    def _follow(self) -> None:
        seen: Any = None
        while not self.closing.wait(_LOOK_SECONDS):
            now = _stands(self.root)
            if now in (None, seen):
                continue
            try:
                self.upload()
                seen = now
            except Exception as error:  # whatever it is, the training goes on
                self._say(f"warning: {self.url} could not be written ({reason_of(error)}); it is tried again")
                self.closing.wait(_AGAIN_SECONDS)

    def _say(self, text: str) -> None:
        self.console.print(f"{'mirror':<8} {text}", highlight=False, markup=False, soft_wrap=True)


def _read(content: bytes, url: str) -> dict[str, Any]:
    """Return what run.json says; a UsageError is raised if it is damaged, or of another version."""
    try:
        whole = json.loads(content)
        found: dict[str, Any] = json.loads(whole["content"])
        if hashlib.sha256(whole["content"].encode()).hexdigest() == whole["sha256"] and found["schema"] == _SCHEMA:
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"'{url}/run.json' is damaged, or no mirror of this version; give a different URL.")


def _own(run: RunDirectory) -> dict[str, Any]:
    state = run.state()
    return {name: state[name] for name in _OWN}


def _files(root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the path, in parts, of every file of a run that is mirrored; what is hidden is not finished."""
    for folder, folders, names in os.walk(root):
        inside = Path(folder).relative_to(root).parts
        folders[:] = [name for name in folders if name[0] != "." and (inside or name not in _LEFT_OUT)]
        yield from ((*inside, name) for name in names if name[0] != ".")


def _stands(root: Path) -> Any:
    """Return what changes with every new checkpoint and every finished stage; None before the run has begun."""
    try:
        changed = (root / "state.json").stat().st_mtime_ns
    except OSError:
        return None
    return changed, sorted(root.glob("checkpoints/*/*/step-*"))


def _hold(source: Path, held: Path, size: int) -> None:
    """Keep a file as it is now, whatever becomes of it meanwhile."""
    if size > _COPIED:
        with suppress(OSError):  # file systems without links
            os.link(source, held)
            return
    shutil.copyfile(source, held)
