"""Reading ``report.json``: any report of this version or the last one, as the document that this version writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.core.json_files import read_object
from vitcompress.pipeline.report.shape import SCHEMA_VERSION, Report

OLDEST = 2
AGAIN = "run `compress verify RUN` with this version to write it again"


def load_report(path: Path) -> dict[str, Any]:
    """Return ``read_report`` as what ``document.build`` returns, of schema ``SCHEMA_VERSION``."""
    return read_report(path).model_dump(mode="json")


def read_report(path: Path) -> Report:
    """Return the report in a run directory, or in a file, checked against its schema.

    Args:
        path: RUN, whose ``report/report.json`` is meant, or the JSON file itself.

    Returns:
        The report in the shape of schema ``SCHEMA_VERSION``. In a report of schema 2 what that did not have is empty;
        nothing is made up.

    Raises:
        UsageError: there is no report, it cannot be read, or it is damaged, something else, or of another version.
    """
    file = path / "report" / "report.json" if path.is_dir() else path
    document = _document(file)
    version = document.get("schema_version")
    other = "kind" in document  # a baseline, a check or a comparison; a report has none
    if other or "verdict" not in document or isinstance(version, bool) or not isinstance(version, int):
        raise UsageError(
            f"'{file}' is JSON but no report of compress ({_found(document)}); give a run directory, or its "
            "report/report.json."
        )
    if not OLDEST <= version <= SCHEMA_VERSION:
        age, remedy = ("a newer", f"update compress, or {AGAIN}") if version > SCHEMA_VERSION else ("an older", AGAIN)
        raise UsageError(
            f"'{file}' has report schema {version}, written by {age} compress; this version reads {OLDEST} to "
            f"{SCHEMA_VERSION}: {remedy}."
        )
    try:
        for step in range(version, SCHEMA_VERSION):
            document = _STEPS[step](document)
        # Through JSON: strict types, but lists where the records have tuples.
        return Report.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise UsageError(
            f"'{file}' is damaged: it does not hold what schema {version} promises ('{place}': "
            f"{first['msg'].lower()}{more}); restore it, or {AGAIN}."
        ) from error


def _document(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UsageError: there is none.
    """
    if not file.exists():
        if file.name == "report.json" and file.parent.name == "report":
            raise UsageError(
                f"'{file.parent.parent}' has no report ('{file}' is missing); give the folder of a finished "
                "`compress run`, or a report.json."
            )
        raise UsageError(f"report '{file}' does not exist; give a run directory, or its report/report.json.")
    return read_object(file, "report", f"give a run directory or its report/report.json, or {AGAIN}")


def _found(document: dict[str, Any]) -> str:
    """Return what other JSON there is instead, for the message."""
    if "kind" in document:
        return f"its kind is {str(document['kind'])[:40]!r}"
    if "verdict" in document:
        return f"its schema_version is {str(document.get('schema_version'))[:40]!r}"
    names = ", ".join(repr(str(name)[:30]) for name in list(document)[:3])
    return f"it holds {names or 'nothing'}"


def _from_2(document: dict[str, Any]) -> dict[str, Any]:
    """Add what schema 3 added: measurements of rows, which the records' own defaults leave empty, and these keys."""
    lists = ("throughput", "memory", "flips", "class_names", "class_images", "pinned", "history")
    nothing = dict.fromkeys(("answers", "hardware", "disturbance"))
    empty: dict[str, list[Any]] = {name: [] for name in lists}
    return {**document, **empty, **nothing, "images_digest": "", "schema_version": 3}


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {2: _from_2}
"""How a report of each older schema becomes one of the next."""
