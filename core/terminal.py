"""Consoles of rich for a terminal, a pipe or a file; and bars of other libraries, which belong in a terminal alone."""

from __future__ import annotations

import os
import sys

from rich.console import Console

WIDE = 10_000
"""Columns where there is no terminal: no line is broken and no table is cut, so that grep and a log find it whole."""


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return the console of stdout or stderr; where that is no terminal, it has no width and nothing moves on it.

    rich itself reads ``NO_COLOR``, ``FORCE_COLOR``, ``TERM=dumb`` and ``COLUMNS``, which sets the width of a pipe too.
    ``FORCE_COLOR`` gives a pipe colours, and no bars.
    """
    there = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if there or os.environ.get("COLUMNS", "").isdigit() else WIDE
    moving = None if there else False
    return Console(stderr=stderr, quiet=quiet, width=width, force_interactive=moving, force_jupyter=False)


def quiet_bars() -> None:
    """Where stderr is no terminal, keep bars of libraries that are imported from now on off it, unless asked for."""
    if not sys.stderr.isatty():
        for variable in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(variable, "1")
