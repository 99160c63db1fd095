"""What Pillow says besides pixels: kept off the terminal, counted by image, and told once where it matters.

Nothing here imports Pillow: `compress --help` starts without it.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitcompress.core.words import counted

FROM = r"(PIL|vitcompress\.core\.images)(\.|$)"
"""Modules whose warnings are about images."""
_SHOWN = 3
_here = threading.local()


def hush() -> None:
    """From now on nothing of Pillow's reaches the terminal by itself from this process."""
    warnings.filterwarnings("ignore", module=FROM)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # without one, Python prints what is logged


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Pillow off the terminal within the block, for callers whose process is not ours."""
    with warnings.catch_warnings():
        hush()
        # In a notebook without widgets, of the progress bars of libraries that we import.
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def reading(path: Path) -> None:
    """Whatever Pillow says next in this thread is about this file."""
    _here.path = path


class Heard:
    """What Pillow said of which images."""

    def __init__(self) -> None:
        self.images: dict[str, dict[Path, str]] = {}
        """By message without its numbers: the first such message on each image."""

    def add(self, message: str) -> None:
        """Note a message about the image that this thread reads."""
        kind = re.sub(r"\d+", "N", message)
        self.images.setdefault(kind, {}).setdefault(getattr(_here, "path", Path("?")), message)

    def lines(self) -> list[str]:
        """Return one line for each kind of message: how many images, the first names, what was said."""
        lines = []
        for _, found in sorted(self.images.items()):
            paths = sorted(found)
            names = ", ".join(map(str, paths[:_SHOWN])) + (", ..." if len(paths) > _SHOWN else "")
            said = " ".join(found[paths[0]].split())
            lines.append(f"note: {counted(len(paths), 'image')} used in spite of a remark of Pillow ({names}): {said}")
        return lines


@contextmanager
def listening() -> Iterator[Heard]:
    """Collect what Pillow says within the block, in any thread; other warnings go where they went."""
    heard = Heard()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=FROM)
        before = warnings.showwarning

        def show(message: Any, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
            if "PIL" in Path(filename).parts or filename.endswith(str(Path("core", "images.py"))):
                heard.add(str(message))
            else:
                before(message, category, filename, lineno, *more)

        warnings.showwarning = show  # type: ignore[assignment]
        yield heard
