"""A session of work on a run: its lock, and RUN/log.txt, which has all that was said, shown or not."""

from __future__ import annotations

import logging
import os
import platform
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from vitcompress.core.errors import RunInterrupted
from vitcompress.core.rundir import utc_now
from vitcompress.core.storage import hidden
from vitcompress.pipeline.machine import environment
from vitcompress.pipeline.runner import Runner


@contextmanager
def session(runner: Runner, command: str) -> Iterator[None]:
    """Hold the run's lock within the block, and log the command, machine, warnings and how the block ends.

    A line is in the file when the logging function returns. Where the disk takes no more, lines are left out: whatever
    the run itself cannot write is reported there.
    """

    def log(text: str) -> None:
        plain = (
            "".join(sign if sign.isprintable() else " " for sign in line)
            for line in hidden(click.unstyle(text)).splitlines()
        )
        with suppress(OSError):
            os.write(file, "".join(f"{utc_now()} {line}\n" for line in plain).encode(errors="backslashreplace"))

    with runner.run.locked():
        file = os.open(runner.run.root / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        silent, runner.log = runner.log, log
        try:
            facts = {"host": platform.node(), "seed": runner.run.state()["identity"].get("seed"), **environment()}
            log(f"session: {command}\n" + "\n".join(f"{name}: {value}" for name, value in facts.items()))
            with _overheard(log):
                yield
            log("session ended")
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, RunInterrupted))
            log(f"stopped: {error}" if stopped else f"error: {error}\n{traceback.format_exc()}")
            raise
        finally:
            runner.log = silent  # another file may get the number of this one
            os.close(file)


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
