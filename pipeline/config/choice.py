"""One decided setting with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A value that was decided, and why."""

    value: Any
    reason: str = ""
    """One sentence without its full stop; empty where the value only spells out what was given."""
    shown: str = ""
    """The value in words, where it is a whole section."""
    key: str = ""
    """Of the setting, dotted, as ``--set`` takes it; filled in by ``decide``."""

    def __str__(self) -> str:
        """Return the value for a reader."""
        if self.shown or self.value is None:
            return self.shown or "none"
        if isinstance(self.value, tuple):
            return ", ".join(map(str, self.value))
        return f"{self.value:g}" if isinstance(self.value, float) else str(self.value)
