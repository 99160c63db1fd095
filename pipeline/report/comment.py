"""Markdown that always fits into a comment on a pull request, whatever is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST = 60_000
"""Bytes of UTF-8. GitHub refuses a comment of more than 65,536 characters; the rest is left to who puts a heading or a
link around it."""
_LINE = 2_000
"""Characters of one line of what always stands open: a path or an error text may be of any length."""
_LEFT_OUT = "Left out here for its length; `report.json` beside this file has all of it."


@dataclass(frozen=True)
class Fold:
    """A long part, folded away under its title."""

    title: str
    body: str

    def __str__(self) -> str:
        # The empty lines make GitHub read the body as Markdown.
        return f"<details>\n<summary>{self.title}</summary>\n\n{self.body}\n\n</details>"


def fitted(open_parts: Sequence[str], folds: Sequence[Fold]) -> str:
    """Return the parts, then the folds, ending in a newline, in at most ``MOST`` bytes.

    Args:
        open_parts: what everyone sees, the most important first; no code block, for it may be cut at any line.
        folds: the most important first; when room is short the last ones are left out first, each saying so.
    """
    shown = list(folds)
    for index in reversed(range(len(shown))):
        if _size(open_parts, shown) <= MOST:
            break
        shown[index] = Fold(shown[index].title, _LEFT_OUT)
    if _size(open_parts, shown) > MOST:
        room = MOST - _size([_CUT], shown)
        return _joined([_cut("\n\n".join(open_parts), room), _CUT], shown)
    return _joined(open_parts, shown)


_CUT = "Cut here for its length; `report.json` beside this file has all of it."


def _joined(open_parts: Sequence[str], folds: Sequence[Fold]) -> str:
    return "\n\n".join([*filter(None, open_parts), *map(str, folds)]) + "\n"


def _size(open_parts: Sequence[str], folds: Sequence[Fold]) -> int:
    return len(_joined(open_parts, folds).encode())


def _cut(text: str, room: int) -> str:
    """Return the first whole lines of ``text`` that fit into ``room`` bytes, overlong lines shortened."""
    kept: list[str] = []
    for line in text.splitlines():
        short = line if len(line) <= _LINE else line[: _LINE - 1] + "…"
        room -= len(short.encode()) + 1
        if room < 2:  # the empty line before what follows
            break
        kept.append(short)
    return "\n".join(kept)
