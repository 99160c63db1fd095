"""The published JSON Schemas of --json: `python -m vitcompress.pipeline.commands.schemas` writes them anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vitcompress.core.files import write_atomic
from vitcompress.pipeline.commands.documents import DOCUMENTS
from vitcompress.pipeline.commands.output import VERSIONS
from vitcompress.pipeline.report.schema_file import PATH, text


def files() -> Iterator[tuple[Path, str]]:
    """Yield ``docs/schemas/SCHEMA-VERSION.schema.json`` of every document, and what is to stand in it."""
    for schema, record in DOCUMENTS.items():
        version = VERSIONS.get(schema, 1)
        yield PATH.with_name(f"{schema}-{version}.schema.json"), text(record, {"schema": schema, "version": version})


if __name__ == "__main__":
    for path, content in files():
        write_atomic(path, content)
