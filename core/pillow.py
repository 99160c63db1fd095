"""What Pillow says besides pixels: kept off the terminal, counted image by image, and told once where it matters.

Nothing here imports Pillow: `compress --help` starts without it.
"""

from __future__ import annotations

import logging
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
_KINDS = (
    ("metadata", "damaged EXIF data or tags, which are ignored", ("EXIF", "Truncated File Read", "Metadata Warning")),
    ("large", "more than {limit:.0f} megapixels: slow to decode, in every epoch; scale them down", ("decompression",)),
)
"""A name, what to tell, and what a message of this kind contains; in this order."""
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
    """What was said of which images."""

    def __init__(self) -> None:
        self.images: dict[str, dict[Path, str]] = {}
        """By kind: the first message on each image."""

    def add(self, message: str) -> None:
        """Note a message about the image that this thread reads."""
        kind = next((name for name, _, signs in _KINDS if any(sign in message for sign in signs)), "other")
        self.images.setdefault(kind, {}).setdefault(getattr(_here, "path", Path("?")), message)

    def lines(self) -> list[str]:
        """One line a kind: how many images, what it means, the first names."""
        return [self._line(kind, self.images[kind]) for kind in ("metadata", "large", "other") if kind in self.images]

    def _line(self, kind: str, found: dict[Path, str]) -> str:
        paths = sorted(found)
        names = ", ".join(map(str, paths[:_SHOWN])) + (", ..." if len(paths) > _SHOWN else "")
        count = f"{counted(len(paths), 'image')} {'has' if len(paths) == 1 else 'have'}"
        for name, words, _ in _KINDS:
            if name == kind:
                return f"note: {count} {words.format(limit=_limit() / 1e6)} ({names})"
        return f"note: {count} something odd: {found[paths[0]].strip()} ({names})"


def _limit() -> float:
    from PIL import Image

    return Image.MAX_IMAGE_PIXELS or float("inf")


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
