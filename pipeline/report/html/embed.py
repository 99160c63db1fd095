"""Pictures of a run as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Picture:
    """A picture for ``<img>``, or why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    """Pixels."""
    reason: str = ""


def embedded(root: Path, relative: str) -> Picture:
    """The picture ``relative`` of the run at ``root``; with ``reason`` filled where it cannot be shown.

    A picture that is gone, damaged, too large or outside the run costs the page that picture and nothing else.
    """
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
        with Image.open(path) as image:
            kind, (width, height) = _KINDS.get(image.format or "", ""), image.size
            image.verify()
        bare = path.read_bytes()
        if kind == _KINDS["PNG"]:
            with Image.open(io.BytesIO(bare)) as image:  # anew: verify leaves nothing to read
                bare, is_webp = _smaller(image, bare)
            kind = _KINDS["WEBP"] if is_webp else kind
    except Exception as error:  # Pillow lets the decoder's own error through, whatever it is
        return Picture(reason=f"{relative} cannot be read as a picture ({type(error).__name__})")
    if not kind:
        return Picture(reason=f"{relative} is none of {', '.join(_KINDS)}")
    content = base64.b64encode(bare).decode()
    return Picture(uri=f"data:{kind};base64,{content}", width=width, height=height)


def _smaller(image: Image.Image, content: bytes) -> tuple[bytes, bool]:
    """A PNG as WebP, pixel for pixel the same in about a third of the bytes; or as it is where that gains nothing.

    Returns:
        The bytes, and whether they are WebP.

    Raises:
        Exception: the decoder's own, where the PNG is damaged.
    """
    image.load()
    if image.mode not in _EXACT or max(image.size) > WEBP_LARGEST or not features.check("webp"):
        return content, False
    clear = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
    buffer = io.BytesIO()
    # exact keeps the colour of pixels that cannot be seen
    image.convert("RGBA" if clear else "RGB").save(buffer, "WEBP", lossless=True, quality=50, method=2, exact=True)
    made = buffer.getvalue()
    return (made, True) if len(made) < len(content) else (content, False)
