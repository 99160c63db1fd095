"""What the functions of the Python face are given, as the command line writes it (torch-free)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from vitcompress.core.errors import UsageError

PathLike = str | os.PathLike[str]


def console_of(progress: bool) -> Console:
    """Return where progress is printed: stderr, or nowhere; plain text in a notebook too."""
    return Console(stderr=True, quiet=not progress, force_jupyter=False)


def text_of(value: PathLike | None) -> str | None:
    """Return a path as text; None for none."""
    return None if value is None else os.fspath(value)


def comma_list(value: str | Sequence[str] | None) -> str | None:
    """Return names with commas between them; None for none."""
    return value if value is None or isinstance(value, str) else ",".join(value)


def assignments(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Write settings as the command line does, ``key=value``, the value as JSON, which is YAML too.

    Raises:
        UsageError: a value is not text, number, list, mapping or None.
    """
    try:
        return tuple(
            f"{key}={json.dumps(value, allow_nan=False, ensure_ascii=False, default=os.fspath)}"
            for key, value in settings.items()
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"settings hold a value that is not text, number, list or mapping ({error}); write it as one."
        ) from error
