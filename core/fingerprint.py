"""When is a stage's result still good? When nothing that went into it changed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vitcompress.core.record import Record


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_encode)


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.identity()
    raise TypeError(f"no canonical form for {type(value).__name__}")


def fingerprint(*parts: Any) -> str:
    """Hex SHA-256 of the canonical form of ``parts`` (JSON values and records)."""
    return hashlib.sha256(canonical(list(parts)).encode()).hexdigest()
