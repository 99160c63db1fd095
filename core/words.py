"""Words that several parts of the program write the same way."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} {what}{'' if count == 1 else 's'}"
