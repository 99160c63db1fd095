"""The page: its template, and the pictures in it as data URIs, so that it needs no other file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from markupsafe import Markup
from PIL import Image

from vitcompress.pipeline.report.html import charts
from vitcompress.pipeline.report.templates import environment

ASSETS = Path(__file__).parent / "assets"


def render(report: Mapping[str, Any], root: Path) -> str:
    """Return the report of ``document.build`` as one HTML page that needs no other file and no network.

    Text of the report is escaped wherever it stands; the page's own policy lets nothing be loaded and no script run
    but its own. Pictures of the run at ``root`` (figures of the analysis, flipped images) are put into the page.
    """
    template = environment().get_template("page.html")
    script = (ASSETS / "script.js").read_text()
    page = template.render(
        report=report,
        style=Markup((ASSETS / "style.css").read_text()),  # noqa: S704 - this package's own file
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        config=yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True),
        charts=charts,
        picture_of=cache(partial(embedded, root)),
    )
    # A file name that is no valid Unicode must not cost the report.
    return page.encode("utf-8", "replace").decode()


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
