"""The errors a user can meet, and the exit code each one ends the program with.

    CompressError                exit code
    ├── UsageError               2   a command, config value, model name or checkpoint is not usable as given
    ├── DataError                2   the images are not usable as given
    ├── BundleError              2   a bundle is damaged, incomplete or not a bundle
    ├── ResultError              1   a result of this program failed its own check (a fold, an export, a loss)
    ├── EnvironmentLacksError    3   something that was asked for is not on this machine (a GPU, TensorRT)
    ├── ProcessLost             75   another process of the same training is gone; never the first cause, and a
    │                                launcher passes on that one's code
    └── RunInterrupted         130   stopped on request; the same command resumes
        └── RunPreempted        85   likewise, by SIGUSR1: the machine is about to be taken away

Every message is one or two sentences: what was wrong, the value given, what is allowed, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_GATE_FAILED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3
EXIT_PROCESS_LOST = 75
EXIT_PREEMPTED = 85
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141
"""What `compress` ends with; no code ever changes its meaning. docs/machine-readable.md has the table."""


class CompressError(Exception):
    """Base of every error that is the user's to solve: printed without a traceback."""

    exit_code = EXIT_USAGE


class UsageError(CompressError):
    """A command, config value, model name, run directory or checkpoint is not usable as given."""


class DataError(CompressError):
    """The images are not usable as given."""


class BundleError(CompressError):
    """A bundle is damaged, incomplete or not a bundle."""


class ResultError(CompressError):
    """A result of this program failed its own check, so nothing was made of it."""

    exit_code = EXIT_GATE_FAILED


class EnvironmentLacksError(CompressError):
    """Something that was asked for is not on this machine."""

    exit_code = EXIT_ENVIRONMENT


class ProcessLost(CompressError):  # noqa: N818 - it tells of an error elsewhere
    """Another process of the same training is gone; that one's own message, or its launcher's, says why."""

    exit_code = EXIT_PROCESS_LOST


class LeftToMain(Exception):  # noqa: N818 - control flow, no error
    """What remains of a stage is one process's work, and this is not that process."""


class RunInterrupted(CompressError):  # noqa: N818 - stopping on request is no error
    """Stopped on request (SIGINT); the same command resumes."""

    exit_code = EXIT_INTERRUPTED


class RunPreempted(RunInterrupted):
    """Stopped by SIGUSR1, by which a scheduler announces that it takes the machine away; the same command resumes."""

    exit_code = EXIT_PREEMPTED


def nearest(given: str, allowed: Iterable[str], count: int = 5) -> str:
    """Return the allowed values most like ``given``, as ``a, b, c``; empty when nothing comes near."""
    return ", ".join(difflib.get_close_matches(given, list(allowed), n=count, cutoff=0.5))
