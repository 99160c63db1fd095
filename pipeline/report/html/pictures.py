"""Pictures of a run as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Picture(NamedTuple):
    """A picture for ``<img>``, or why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    """Pixels."""
    reason: str = ""


def embedded(root: Path, relative: str) -> Picture:
    """Return the picture ``relative`` of the run at ``root``; with ``reason`` filled where it cannot be shown.

    A PNG becomes a WebP of the same pixels, of about a third of the bytes. A picture that is gone, damaged or outside
    the run costs the page that picture and nothing else.
    """
    path = root / relative
    if not relative:
        return Picture(reason="no picture was kept")
    if not (path.resolve().is_relative_to(root.resolve()) and path.is_file()):
        return Picture(reason=f"{relative} is not in the run any more")
    try:
        buffer = io.BytesIO()
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            image.load()
            if image.format == "PNG":
                image.save(buffer, "WEBP", lossless=True, quality=50, method=2)
            content = buffer.getvalue() or path.read_bytes()
            kind = "webp" if buffer.getvalue() else str(image.format).lower()
            return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *image.size)
    except Exception as error:  # Pillow lets the decoder's own error through, whatever it is
        return Picture(reason=f"{relative} cannot be read as a picture ({type(error).__name__})")
