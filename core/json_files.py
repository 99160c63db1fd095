"""Reading a JSON file that may be anything, so that whatever is wrong with it is told in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError

LARGEST = 256 * 2**20
"""Bytes; a file beyond is none of ours, and is not read into memory to find out."""
_KINDS = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def read_object(file: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file; ``what`` it should be and the ``remedy`` if it is damaged are for the message.

    Raises:
        UsageError: it is no file, cannot be read, is too large, or holds no JSON object.
    """
    try:
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "no regular file" if file.exists() else "missing"
            raise UsageError(f"{what} '{file}' is {kind}; give a JSON file.")
        size = file.stat().st_size
        if size > LARGEST:
            raise UsageError(
                f"{what} '{file}' has {size // 2**20} MiB, more than the {LARGEST // 2**20} that one can have; "
                "give another file."
            )
        content = json.loads(file.read_bytes().decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except OSError as error:
        raise UsageError(f"{what} '{file}' cannot be read ({error.strerror}); check its permissions.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} '{file}' is not UTF-8 text (byte {error.start}); {remedy}.") from error
    except RecursionError as error:
        raise UsageError(f"{what} '{file}' is damaged (nested too deeply); {remedy}.") from error
    except ValueError as error:
        said = " ".join(str(error).split())[:120]
        raise UsageError(f"{what} '{file}' is damaged or no JSON ({said}); {remedy}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{what} '{file}' holds {_KINDS.get(type(content), 'null')}, not a JSON object; {remedy}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is too large for a number")
    return float(text)
