"""A record kept beside its files, with a fingerprint of what it was made of: reused while neither has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from vitcompress.core.files import is_intact, references_in, write_atomic
from vitcompress.core.record import Record

Kind = TypeVar("Kind", bound=Record)


def keep(path: Path, key: str, record: Record) -> None:
    """Write a record to ``path`` with the fingerprint of its inputs."""
    write_atomic(path, json.dumps({"key": key, "record": record.model_dump(mode="json")}, indent=2) + "\n")


def kept(kind: type[Kind], path: Path, key: str, root: Path) -> Kind | None:
    """Return the record at ``path`` if it was made of inputs with this ``key``, and all its files are intact.

    None where there is none, it is damaged, or another version wrote it. Its files are below ``root``.
    """
    try:
        found = json.loads(path.read_bytes())
        record = kind.model_validate_json(json.dumps(found["record"])) if found["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = record is not None and all(is_intact(one, root) for one in references_in(record))
    return record if good else None
