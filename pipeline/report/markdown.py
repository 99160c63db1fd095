"""The report as Markdown, fit for a comment on a pull request: the verdict first, then the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitcompress.pipeline.report.readings import deployed_row
from vitcompress.pipeline.report.table import Markdown
from vitcompress.pipeline.report.templates import environment

CLASSES_NAMED = 5
MOST = 60_000
"""Bytes of UTF-8. GitHub refuses a comment of more than 65,536 characters; the rest is left to who puts a heading or a
link around it."""
_LEFT_OUT = "Left out here for its length; `report.json` beside this file has all of it."
_OPEN = ("verdict", "flips", "gates", "trained", "models", "metrics", "machines", "notes")
_FOLDED = {
    "measured": "Everything measured",
    "reproduce": "How to reproduce",
    "artifacts": "Artifacts",
    "analysis": "Analysis",
}
"""Parts of the template ``report.md``, and the titles that they are folded under; the most important first."""


def render(report: dict[str, Any]) -> str:
    """Return the whole report of ``document.build`` as GitHub-flavoured Markdown that fits into a comment.

    The verdict, gates and a compact table stand open; everything longer is folded, and left out where it is too long.
    """
    words = {
        "deployed": deployed_row(report),
        "command": Markdown(report["command"].replace("```", "'''")),
        "most": CLASSES_NAMED,
    }
    parts = environment(markdown=True).get_template("report.md").make_module(words)
    told = {name: getattr(parts, name)(report).strip() for name in (*_OPEN, *_FOLDED)}
    opened = "\n\n".join(told[name] for name in _OPEN if told[name])
    return fitted(opened, {title: told[name] for name, title in _FOLDED.items() if told[name]})


def fitted(opened: str, folds: Mapping[str, str]) -> str:
    """Return a text, then parts that are folded away under their titles, in at most ``MOST`` bytes.

    When room is short the last parts are left out first, each saying so; then the text is cut at the end of a line.
    """
    for kept in reversed(range(len(folds) + 1)):
        bodies = [body if index < kept else _LEFT_OUT for index, body in enumerate(folds.values())]
        # The empty lines make GitHub read the body as Markdown.
        details = "".join(
            f"\n\n<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
            for title, body in zip(folds, bodies, strict=True)
        )
        room = MOST - len(f"{details}\n".encode())
        if len(opened.encode()) <= room:
            return f"{opened}{details}\n"
    start = opened.encode()[: room - len(_LEFT_OUT) - 2].decode(errors="ignore").rpartition("\n")[0]
    return f"{start}\n\n{_LEFT_OUT}{details}\n"
