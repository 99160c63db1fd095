"""The report as Markdown, fit for a comment on a pull request: the verdict first, then the numbers behind it."""

from __future__ import annotations

from typing import Any

from vitcompress.pipeline.report.comment import Fold, fitted
from vitcompress.pipeline.report.readings import deployed_row
from vitcompress.pipeline.report.table import Markdown
from vitcompress.pipeline.report.templates import environment

CLASSES_NAMED = 5
_OPEN = ("verdict", "flips", "gates", "trained", "models", "notes")
_FOLDED = {
    "measured": "Everything measured",
    "projector": "Projector: kept against folded",
    "reproduce": "How to reproduce",
    "terms": "Terms of the loss",
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
    folds = [Fold(title, told[name]) for name, title in _FOLDED.items() if told[name]]
    return fitted([told[name] for name in _OPEN], folds)
