"""Words that several parts of the program write the same way."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return two or three digits in the unit a reader would choose: 3.1 ms, 45 s, 12 min, 5.2 h, 8.1 days."""
    for unit, length, upto in (("ms", 1e-3, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172800.0)):
        if seconds < upto:
            return _short(seconds / length, unit)
    return _short(seconds / 86400, "days")


def size(count: float) -> str:
    """Return a number of bytes in decimal units, such as 512 MB or 3.4 GB."""
    return _short(count / 1e9, "GB") if count >= 1e9 else _short(count / 1e6, "MB")


def _short(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 20 else f"{value:.2g} {unit}" if value < 1 else f"{value:.1f} {unit}"
