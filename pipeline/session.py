"""A session of work on a run: its lock, and RUN/log.txt, which tells what was said, shown or not."""

from __future__ import annotations

import logging
import os
import platform
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from vitcompress.core.errors import RunInterrupted
from vitcompress.core.rundir import utc_now
from vitcompress.pipeline.machine import environment
from vitcompress.pipeline.runner import Runner


@contextmanager
def session(runner: Runner, command: str) -> Iterator[None]:
    """Hold the run's lock within the block, and log the command, machine, warnings and how the block ends."""
    with runner.run.locked(), _log(runner.run.root / "log.txt") as log, _overheard(log):
        runner.log = log
        found = environment()
        packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
        log(f"session: {command}")
        log(f"compress {found['compress']}, Python {found['python']}, {packages}")
        log(
            f"{platform.node()}: {found['system']}, {found['processor']}, {found['cores']} cores, "
            f"{found['memory_gib']} GiB, {'a GPU' if found['gpu'] else 'no GPU'}"
        )
        log(f"seed {runner.run.state()['identity'].get('seed')}")
        try:
            yield
        except (KeyboardInterrupt, RunInterrupted) as error:
            log(f"stopped: {error}" if str(error) else "stopped")
            raise
        except BaseException as error:
            log(f"error: {error}\n{traceback.format_exc()}")
            raise
        log("session ended")


@contextmanager
def _log(path: Path) -> Iterator[Callable[[str], None]]:
    """Give a function that appends lines, each with its time; each is in the file when the function returns.

    Where the disk takes no more, lines are left out: whatever the run itself cannot write is reported there.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(text: str) -> None:
        at = utc_now()
        lines = (f"{at} {_plain(line)}".rstrip() for line in text.splitlines())
        with suppress(OSError):
            os.write(file, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))

    try:
        yield write
    finally:
        os.close(file)


def _plain(line: str) -> str:
    """Return the line without colours and control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in click.unstyle(line))


@contextmanager
def _overheard(log: Callable[[str], None]) -> Iterator[None]:
    """Within the block, log what Python shows at the terminal of itself: warnings, and messages nobody handles."""
    show, last = warnings.showwarning, logging.lastResort

    def shown(message: Any, category: Any, filename: str, lineno: int, *more: Any) -> None:
        show(message, category, filename, lineno, *more)
        log(warnings.formatwarning(message, category, filename, lineno))

    class Both(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log(f"{record.levelname.lower()}: {self.format(record)}")
            if last is not None:
                last.handle(record)

    warnings.showwarning, logging.lastResort = shown, Both(logging.WARNING)  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning, logging.lastResort = show, last
