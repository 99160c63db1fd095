"""Pictures of a run as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image, features

from vitcompress.core.errors import UsageError
from vitcompress.core.files import inside

LARGEST = 8_000_000
"""Bytes of one picture; a larger one is left out, for the page is one file that people mail."""
WEBP_LARGEST = 16_383
"""Pixels of a side, the most that WebP can say."""
_EXACT = ("RGB", "RGBA", "L")
"""Pillow's modes that WebP holds without loss."""
_KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class Picture(NamedTuple):
    """A picture for ``<img>``, or why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    """Pixels."""
    reason: str = ""


def embedded(root: Path, relative: str) -> Picture:
    """Return the picture ``relative`` of the run at ``root``; with ``reason`` filled where it cannot be shown.

    A picture that is gone, damaged, too large or outside the run costs the page that picture and nothing else.
    """
    if not relative:
        return Picture(reason="no picture was kept")
    try:
        path = inside(root, relative)
    except UsageError:
        return Picture(reason="its path leaves the run, so it was not opened")
    if not path.is_file():
        return Picture(reason=f"{relative} is not in the run any more")
    size = path.stat().st_size
    if size > LARGEST:
        return Picture(reason=f"{relative} has {size:,} bytes; pictures of up to {LARGEST:,} are shown")
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format or ""
            image.load()
            if kind == "PNG":
                content, kind = _smaller(image, content)
            width, height = image.size
    except Exception as error:  # Pillow lets the decoder's own error through, whatever it is
        return Picture(reason=f"{relative} cannot be read as a picture ({type(error).__name__})")
    if kind not in _KINDS:
        return Picture(reason=f"{relative} is none of {', '.join(_KINDS)}")
    return Picture(f"data:{_KINDS[kind]};base64,{base64.b64encode(content).decode()}", width, height)


def _smaller(image: Image.Image, content: bytes) -> tuple[bytes, str]:
    """Return a PNG as WebP, the same pixels in about a third of the bytes; or as it is where that gains nothing.

    Args:
        image: the picture, loaded.
        content: its file.

    Returns:
        The bytes, and their format.
    """
    if image.mode not in _EXACT or max(image.size) > WEBP_LARGEST or not features.check("webp"):
        return content, "PNG"
    clear = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
    buffer = io.BytesIO()
    # exact keeps the colour of pixels that cannot be seen
    image.convert("RGBA" if clear else "RGB").save(buffer, "WEBP", lossless=True, quality=50, method=2, exact=True)
    return (buffer.getvalue(), "WEBP") if buffer.tell() < len(content) else (content, "PNG")
