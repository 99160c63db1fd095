"""Reading ``report.json``, of this version or the last one, checked against its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.core.files import read_object
from vitcompress.pipeline.report.shape import SCHEMA_VERSION, Report

OLDEST = 3
GONE = ("gpu_p50_ms", "gpu_p90_ms", "gpu_p99_ms", "gpu_method")
"""What a row of ``latency`` had in place of ``gpu``, for a time in this version too; no GPU ever filled it."""
AGAIN = "run `compress verify RUN` with this version to write it again"


def load_report(path: Path) -> dict[str, Any]:
    """Return the report as what ``document.build`` returns; raises as ``read_report``."""
    return read_report(path).model_dump(mode="json")


def read_report(path: Path) -> Report:
    """Return the report in a run directory, or in a file; a UsageError is raised where that is not one, or damaged.

    Of one of the last version, what this version no longer has is left out, and nothing is made up.
    """
    file = path / "report" / "report.json" if path.is_dir() else path
    here = "give a run directory, or its report/report.json"
    if path.is_dir() and not file.exists():
        raise UsageError(f"'{path}' has no report ('{file}' is missing); give the folder of a finished `compress run`.")
    if not file.exists():
        raise UsageError(f"report '{file}' does not exist; {here}.")
    document = read_object(file, "report", f"{here}, or {AGAIN}")
    version: Any = document.get("schema_version")
    # A baseline, a check or a comparison has a kind.
    if "kind" in document or not {"verdict", "schema_version"} <= document.keys():
        raise UsageError(f"'{file}' is JSON but no report of compress (its kind is {document.get('kind')!r}); {here}.")
    if version not in range(OLDEST, SCHEMA_VERSION + 1) or isinstance(version, bool):
        raise UsageError(
            f"'{file}' has report schema {version}, written by another version of compress; this one reads {OLDEST} to "
            f"{SCHEMA_VERSION}: {AGAIN}."
        )
    rows = document.get("latency")
    for row in rows if isinstance(rows, list) else ():
        for gone in GONE if isinstance(row, dict) else ():
            row.pop(gone, None)
    try:
        return _validated({**document, "schema_version": SCHEMA_VERSION}, earlier=version < SCHEMA_VERSION)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise UsageError(
            f"'{file}' is damaged: it does not hold what schema {version} promises ('{place}': "
            f"{first['msg'].lower()}{more}); restore it, or {AGAIN}."
        ) from error


def _validated(document: dict[str, Any], *, earlier: bool) -> Report:
    """Return the typed report, or raise a ValidationError; an earlier version may have keys that this one has not."""
    try:
        # Through JSON: strict types, but lists where the records have tuples.
        return Report.model_validate_json(json.dumps(document))
    except ValidationError as error:
        unknown = [found["loc"] for found in error.errors(include_url=False) if found["type"] == "extra_forbidden"]
        if not (earlier and unknown):
            raise
        for *place, key in unknown:
            holder: Any = document
            for part in place:
                holder = holder[part]
            del holder[key]
        return _validated(document, earlier=earlier)
