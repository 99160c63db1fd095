"""The part of a page that a command writes, between two marks; the text around it is written by hand."""

from __future__ import annotations

import re
from pathlib import Path

from vitcompress.core.files import write_atomic


def write_marked(page: Path, command: str, text: str) -> None:
    """Put ``text`` between ``<!-- command -->`` and ``<!-- end -->``; a ValueError is raised if the page lacks them."""
    found = re.compile(rf"(<!-- {re.escape(command)} -->\n).*?(<!-- end -->)", re.S)
    if not found.search(whole := page.read_text()):
        raise ValueError(f"{page} has no part of {command}")
    write_atomic(page, found.sub(lambda marks: f"{marks[1]}{text}\n{marks[2]}", whole))
