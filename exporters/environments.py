"""Where a target keeps what it does not share with this program: packages with clashing pins, or not of Python."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "COMPRESS_TARGETS"
"""Environment variable with another place for them."""


def environment(name: str) -> Path:
    """Return the folder of a target's own environment, there or not: ``~/.cache/compress/targets/NAME``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or cache / "compress" / "targets") / name
