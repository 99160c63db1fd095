"""`mirror`: a run kept behind a URL too, while it goes on, and taken from there where its folder is new (torch-free).

``URL/files/SHA256`` is a file of the run, ``URL/run.json`` says which files the run has. Files are uploaded first, by
names that nobody uses yet; then the one small object is replaced, which object stores do at once or not at all. So a
machine that is taken away in the middle leaves the older state, complete.
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

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.files import inside, sha256_of, write_atomic
from vitcompress.core.rundir import RunDirectory, utc_now
from vitcompress.core.storage import hidden, located, reaching, reason_of

_LOOK_SECONDS = 2.0
"""Between two looks at whether the run has a new checkpoint or a finished stage."""
_AGAIN_SECONDS = 30.0
"""Before another try, after one that failed."""
_LEFT_OUT = "cache"
"""Folder of a run that is computed again: the teacher's answers, which may be larger than all else together."""
SEEN = ".mirrored"
"""File of a run: SHA-256 of ``run.json`` behind the URL as this folder left it, or was about to."""
_FOLDERS = {"file", "local", "sftp", "ssh", "smb"}
"""Protocols whose folders have to be made; others have none, or make them."""


@contextmanager
def mirrored(url: str | None, root: Path, console: Console) -> Iterator[None]:
    """Keep the run at ``root``, for the time of the block, behind ``url`` too; None: nothing is done.

    Where the run has not begun here, it is first taken from there. A UsageError is raised if another run is there, or
    a file of this one is damaged; an EnvironmentLacksError if the place cannot be used, at the beginning, or at the end
    of a block that did not fail.
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
        with suppress(EnvironmentLacksError):  # it is told; what ended the run counts
            mirror.close()
        raise
    mirror.close()


class Mirror:
    """One run, and its copy behind a URL."""

    def __init__(self, url: str, root: Path, console: Console) -> None:
        self.url, self.root, self.console = url, root.absolute(), console
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True, name="mirror")
        self.digests: dict[tuple[str, int, int], str] = {}
        """SHA-256 of files by path, size and time of change."""
        self.there: set[str] = set()
        """Those of files that ``run.json`` names."""
        self.states: list[str] = []
        """SHA-256 of ``run.json`` as it may be there: of the last that surely was, and of those that failed since."""

    def restore(self) -> None:
        """Take the run from the URL, if it is there and has not begun here; raises as ``mirrored``."""
        here, draft = RunDirectory(self.root), self.root.with_name(f".{self.root.name}.restored")
        with reaching(f"mirror '{self.url}'", EnvironmentLacksError):
            store, base = located(self.url)
            if _FOLDERS & {*([store.protocol] if isinstance(store.protocol, str) else store.protocol)}:
                store.makedirs(f"{base}/files", exist_ok=True)
            store.pipe_file(f"{base}/writable", b"-")  # rather known now than at the first checkpoint
            store.rm_file(f"{base}/writable")
            try:
                content = store.cat_file(f"{base}/run.json")
            except FileNotFoundError:
                return
            found, self.states = json.loads(content), [hashlib.sha256(content).hexdigest()]
            self.there = {*found["files"].values()}
            if here.state_path.is_file():
                self._require_own(found)
                return
            if any(path.name != ".lock" for path in self.root.glob("*")):
                return  # which is refused in better words
            shutil.rmtree(draft, ignore_errors=True)
            paths = [inside(draft, name) for name in found["files"]]
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            store.get([f"{base}/files/{digest}" for digest in found["files"].values()], [str(path) for path in paths])
        if damaged := [name for name, digest in found["files"].items() if sha256_of(draft / name) != digest]:
            raise UsageError(
                f"mirror '{self.url}' is damaged: {damaged[0]} has another SHA-256; remove what is there, or give a "
                "different URL, to start again."
            )
        shutil.rmtree(self.root, ignore_errors=True)  # at most an empty folder with a lock
        draft.replace(self.root)
        self._mark()
        self._say(f"restored {len(found['files'])} files of {found['at']} from {self.url}")

    def _require_own(self, found: dict[str, Any]) -> None:
        """Raise a UsageError where another run is there, or another machine has gone on with this one meanwhile."""
        if found["run"] != _own(RunDirectory(self.root)):
            raise UsageError(f"mirror '{self.url}' holds another run than '{self.root}'; give a different URL.")
        with suppress(FileNotFoundError):  # of an earlier version, or mirrored for the first time
            if self.states[0] not in (self.root / SEEN).read_text().split():
                raise UsageError(
                    f"mirror '{self.url}' was written elsewhere since '{self.root}' was ({found['at']}); remove this "
                    "folder to go on from there, or give a different URL to keep both."
                )

    def _mark(self) -> None:
        write_atomic(self.root / SEEN, "\n".join(self.states) + "\n")

    def close(self) -> None:
        """Wait for what is being uploaded, and upload what is new; an EnvironmentLacksError is raised if it fails."""
        self.closing.set()
        self.thread.join()
        try:
            with reaching(f"the run is in '{self.root}', and its mirror '{self.url}'", EnvironmentLacksError):
                if RunDirectory(self.root).state_path.is_file():  # else it was refused before it began
                    self.upload()
        except EnvironmentLacksError as error:
            self._say(f"warning: {error}")
            raise

    def upload(self) -> None:
        """Bring the files that are not there yet to the URL, then say there which files the run has now."""
        store, base = located(self.url)
        draft = self.root / ".mirror"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            files = self._now(draft)
            if new := sorted({*files.values()} - self.there):
                store.put([str(draft / digest) for digest in new], [f"{base}/files/{digest}" for digest in new])
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        content = {"at": utc_now(), "run": _own(RunDirectory(self.root)), "files": files}
        written = json.dumps(content).encode()
        self.states.append(hashlib.sha256(written).hexdigest())
        self._mark()  # whichever a kill leaves there
        store.pipe_file(f"{base}/run.json", written)
        del self.states[:-1]
        self.there = {*files.values()}
        store.invalidate_cache()
        if old := [path for path in store.find(f"{base}/files") if path.rpartition("/")[2] not in self.there]:
            store.rm(old)

    def _now(self, draft: Path) -> dict[str, str]:
        """Return the SHA-256 of the run's files, by path; those that are not there yet are copied to ``draft``.

        state.json is read first: what it says is done lies there already. Checkpoints come before the metrics, of which
        a run that goes on leaves out what is newer. Where one makes room for the next, all is read again.
        """
        files: dict[str, str] = {}
        order = ("state.json", "checkpoints")
        for path in sorted(_files(self.root), key=lambda one: (one[0] not in order, one[0] != order[0], one)):
            source, name = self.root.joinpath(*path), "/".join(path)
            try:
                stat = source.stat()
                digest = self.digests.get((name, stat.st_size, stat.st_mtime_ns))
                if digest not in self.there:
                    shutil.copyfile(source, draft / "held")  # whatever is appended to it, or becomes of it, meanwhile
                    digest = sha256_of(draft / "held")
                    (draft / "held").replace(draft / digest)
                files[name] = self.digests[name, stat.st_size, stat.st_mtime_ns] = str(digest)
            except FileNotFoundError:
                if path[0] == "checkpoints":
                    return self._now(draft)
        return files

    def _follow(self) -> None:
        seen: list[int] = []
        while not self.closing.wait(_LOOK_SECONDS):
            try:
                made = [*sorted(self.root.glob("checkpoints/*/*/step-*")), *sorted(self.root.glob("records/*.json"))]
                now = [path.stat().st_mtime_ns for path in (*self.root.glob("state.json"), *made)]
                # With the images alone it may yet be refused, and its folder be removed for the corrected command.
                if any(path.name != "data.json" for path in made) and now != seen:
                    self.upload()
                    seen = now
            except Exception as error:  # whatever it is, the training goes on
                self._say(f"warning: {self.url} could not be written ({reason_of(error)}); it is tried again")
                self.closing.wait(_AGAIN_SECONDS)

    def _say(self, text: str) -> None:
        """Print a line, and write it to the run's log, which no session may have open (``pipeline.session``)."""
        line = f"{'mirror':<8} {hidden(text)}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        if (self.root / "state.json").is_file():
            with suppress(OSError), (self.root / "log.txt").open("a", encoding="utf-8") as log:
                log.write(f"{utc_now()} {line}\n")


def _own(run: RunDirectory) -> list[Any]:
    """Return what a run is known by."""
    return [run.state()["created"], run.state()["identity"]]


def _files(root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the path, in parts, of every file of a run that is mirrored; what is hidden is not finished."""
    for folder, folders, names in os.walk(root):
        inside = Path(folder).relative_to(root).parts
        folders[:] = [name for name in folders if name[0] != "." and (inside or name != _LEFT_OUT)]
        yield from ((*inside, name) for name in names if name[0] != ".")
