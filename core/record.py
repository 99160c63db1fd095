"""The base of every record and config, and the reference to a file by its content."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of records and configs: immutable, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())

    volatile: ClassVar[frozenset[str]] = frozenset()
    """Fields that change nothing downstream (times, worker counts) and so stay out of fingerprints."""

    def identity(self) -> dict[str, Any]:
        """Return the JSON values that a later stage's fingerprint depends on; of records inside it, likewise."""
        values = self.model_dump(mode="json", exclude=set(self.volatile))
        inner = {name: value.identity() for name, value in self if isinstance(value, Record) and name in values}
        return {**values, **inner}


class FileRef(Record):
    """A file of the run, by content."""

    path: str
    """Relative to the run directory, with forward slashes."""
    sha256: str
    bytes: int
