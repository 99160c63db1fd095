"""The file with what one machine measured of a bundle, and the results of other machines that a run was given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.core.files import read_object, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.judge_records import Verified

FOLDER = Path("verify") / "machines"
"""Of a run: the results of other machines."""


def file_name(result: Verified) -> str:
    """Return ``verified-MACHINE.json``: the next result of the same machine takes this one's place."""
    return f"verified-{re.sub(r'[^A-Za-z0-9.]+', '-', result.machine).strip('-')}.json"


def write_result(folder: Path, result: Verified) -> Path:
    """Write a result with a digest of its content; return its path."""
    path = folder / file_name(result)
    document = json.loads(result.model_dump_json())
    write_atomic(path, json.dumps({**document, "digest": fingerprint(document)}, indent=1) + "\n")
    return path


def read_result(path: Path) -> Verified:
    """Return the result in a file; a UsageError is raised where it holds none, or is not as it was written."""
    here = "give a verified-MACHINE.json that `compress verify BUNDLE` wrote"
    if not path.is_file():
        raise UsageError(f"result '{path}' does not exist; {here}.")
    document: dict[str, Any] = read_object(path, "result", here)
    digest = document.pop("digest", None)
    if document.get("kind") != "verified":
        raise UsageError(f"'{path}' is JSON but no result of another machine; {here}.")
    if document.get("schema_version") != 1:
        version = document.get("schema_version")
        raise UsageError(f"'{path}' has schema {version}, this version reads 1; use the same version of compress.")
    if digest != fingerprint(document):
        raise UsageError(f"'{path}' is damaged: it is not what was measured (its digest differs); copy it again.")
    try:
        return Verified.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise UsageError(f"'{path}' was written by another version of compress; measure the bundle again.") from error


def results_of(root: Path) -> tuple[list[Verified], list[str]]:
    """Return the results that a run was given, by the names of their files; and of damaged ones what is wrong."""
    results, damaged = [], []
    for path in sorted((root / FOLDER).glob("verified-*.json")):
        try:
            results.append(read_result(path))
        except UsageError as error:
            damaged.append(f"A result of another machine is left out: {error}")
    return results, damaged
