"""What the examination yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    state: Literal["ok", "absent", "broken"]
    """``absent`` takes a feature away; ``broken`` makes results wrong or runs fail."""
    what: str
    fix: str = ""
