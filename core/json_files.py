"""Reading a JSON file that may be anything, so that whatever is wrong with it is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError


def read_object(file: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file; ``what`` it should be and the ``remedy`` if it is damaged are for the message.

    Raises:
        UsageError: it is no file, cannot be read, or holds no JSON object.
    """
    try:
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "no regular file" if file.exists() else "missing"
            raise UsageError(f"{what} '{file}' is {kind}; give a JSON file.")
        content = json.loads(file.read_bytes().decode(), parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageError(f"{what} '{file}' cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:120]
        raise UsageError(f"{what} '{file}' is damaged or no JSON ({said}); {remedy}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{what} '{file}' holds a {type(content).__name__}, not a JSON object; {remedy}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
