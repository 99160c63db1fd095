"""The page: its template, and what the template works with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from vitcompress.pipeline.report.html import charts
from vitcompress.pipeline.report.html.pictures import embedded
from vitcompress.pipeline.report.templates import environment

ASSETS = Path(__file__).parent / "assets"


def render(report: Mapping[str, Any], root: Path) -> str:
    """Return the report of ``document.build`` as one HTML page that needs no other file and no network.

    Text of the report is escaped wherever it stands; the page's own policy lets nothing be loaded and no script run
    but its own.

    Args:
        report: of the current schema.
        root: the run, whose pictures (figures of the analysis, flipped images) are put into the page. One that is gone
            is said on the page.
    """
    script = (ASSETS / "script.js").read_text()
    page = (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            style=Markup((ASSETS / "style.css").read_text()),  # noqa: S704 - this package's own file
            script=Markup(script),  # noqa: S704
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            config=yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True),
            charts=charts,
            picture_of=cache(partial(embedded, root)),
        )
    )
    # A file name that is no valid Unicode must not cost the report.
    return page.encode("utf-8", "replace").decode()
