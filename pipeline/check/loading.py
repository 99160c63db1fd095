"""Reading the two files that are compared, so that whatever is wrong with one is told in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from core.errors import UsageError

LARGEST = 256 * 2**20
"""Bytes; a file beyond is none of ours, and is not read into memory to find out."""
_OLDEST, _NEWEST = 2, 3


def load_report(path: Path) -> dict[str, Any]:
    """The report of a run directory, or in a file.

    Raises:
        UsageError: there is none, or it is damaged, something else, or of a version that cannot be read.
    """
    file = path / "report" / "report.json" if path.is_dir() else path
    if not file.exists():
        raise UsageError(f"'{path}' has no report ('{file}' is missing); give the folder of a finished `compress run`.")
    report = read_object(file, "report", "run `compress verify RUN` to write it again")
    version = report.get("schema_version")
    if "kind" in report or "verdict" not in report or isinstance(version, bool) or not isinstance(version, int):
        raise UsageError(f"'{file}' is JSON but no report of compress; give a run directory or its report/report.json.")
    if version not in range(_OLDEST, _NEWEST + 1):
        age = "newer" if version > _NEWEST else "older"
        raise UsageError(
            f"'{file}' has report schema {version}, written by a compress that is {age}; this version reads {_OLDEST} "
            f"to {_NEWEST}: run `compress verify RUN` with it."
        )
    return report


def read_object(file: Path, what: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        file: to read.
        what: it should be, for the message.
        remedy: what to do when it is damaged.

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
        raise UsageError(f"{what} '{file}' holds a {type(content).__name__}, not a JSON object; {remedy}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is too large for a number")
    return float(text)
