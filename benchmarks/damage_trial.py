"""A command tried: in a process that has everything imported, with its end, its words and its outcome."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 240
_INTERNAL = re.compile(r"Traceback \(most recent call last\)|internal \w*(Error|Exception)")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Of the process; negative: the signal."""
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """Its last line of words, with paths of this machine shortened."""
        lines = [line for line in self.err.splitlines() if line.strip()] or self.out.splitlines()
        return re.sub(r"/\S*/(trial|base)\b", r"\1", lines[-1]) if lines else ""

    def judged(self, good: str) -> dict[str, Any]:
        """Its outcome: ``good`` where it ended with 0, noticed where one sentence says why it did not.

        A traceback or an internal error is wrong whatever the exit code, and so is a death by a signal.
        """
        outcome = good if self.code == 0 else "noticed"
        if _INTERNAL.search(self.out + self.err):
            outcome = "traceback"
        elif self.code < 0 or self.code > 128 or (self.code and not self.last):
            outcome = f"died ({self.code})"
        return {"outcome": outcome, "code": self.code, "said": self.last, "seconds": round(self.seconds, 2)}


def forked(words: Sequence[str | Path], folder: Path, before: Callable[[], None] | None = None) -> Ended:
    """`compress WORDS...` in a copy of this process, which has imported everything and begun nothing.

    Args:
        words: of the command line.
        folder: that it is started in; two files of output are written there and removed.
        before: called in the copy first.
    """
    import vitcompress.pipeline.cli

    files = [folder / ".out", folder / ".err"]
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            if before:
                before()
            vitcompress.pipeline.cli.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = None
    while status is None:
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        elif time.monotonic() - began > LIMIT_SECONDS:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = -signal.SIGKILL
        else:
            time.sleep(0.01)
    out, err = (file.read_text(errors="replace") for file in files)
    for file in files:
        file.unlink()
    return Ended(status, out, err, time.monotonic() - began)
