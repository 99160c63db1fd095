"""Keeping what Pillow says besides pixels off the terminal: it would say it anew in every process and epoch.

Nothing here imports Pillow: `compress --help` starts without it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def hush() -> None:
    """From now on nothing of Pillow's reaches the terminal by itself from this process."""
    warnings.filterwarnings("ignore", module=r"(PIL|vitcompress\.core\.images)(\.|$)")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # without one, Python prints what is logged


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Pillow off the terminal within the block, for callers whose process is not ours."""
    with warnings.catch_warnings():
        hush()
        # In a notebook without widgets, of the progress bars of libraries that we import.
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield
