"""Processes of a run: which of them this one is, and how another one starts with this package. Without torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import vitcompress


def rank() -> int:
    """Return the number of this process among all of the run's; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together; 1 when nothing launched several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_program(code: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs ``code`` with the modules of this one, whatever folder it starts in.

    A user's own ``torch.py`` in that folder is not imported.
    """
    paths = [*filter(None, sys.path), str(Path(vitcompress.__file__).resolve().parents[1])]
    return [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {paths!r}\n{code}", *arguments]
