"""Starts of `compress` that share their imports, which take longer than a tiny training.

A process that has imported what ``moments`` needs forks one for each start; each is the leader of a
session of its own, as a shell or a scheduler starts it.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from running import ENVIRONMENT

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["moments"])


def forked(start: Callable[[list[str]], None], words: list[str]) -> tuple[int, str]:
    """The exit code of ``start(words)`` in a process of its own (-9: by SIGKILL), and what it printed on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        err = Path(folder) / "err"
        process = _SERVER.Process(target=_child, args=(start, words, err))
        before = dict(os.environ)
        os.environ.update(ENVIRONMENT)  # the server, which begins with the first of them, keeps it
        try:
            ensure_running()
            process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        process.join(300)
        assert process.exitcode is not None, f"{words} has not ended: {err.read_text()}"
        return process.exitcode, err.read_text()


def _child(start: Callable[[list[str]], None], words: list[str], err: Path) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # loaders start as they do for a user, not by the server
    for descriptor, path in ((1, Path(os.devnull)), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    start(words)
