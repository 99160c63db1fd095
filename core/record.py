"""The base of every record and config, and the reference to a file by its content."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of records and configs: immutable, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())

    volatile: ClassVar[frozenset[str]] = frozenset()
    """Fields that change nothing downstream (times, worker counts) and so stay out of fingerprints."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later: at their default they stay out of fingerprints, so that earlier results stay valid."""

    def identity(self) -> dict[str, Any]:
        """Return the JSON values that a later stage's fingerprint depends on; of records inside it, likewise."""
        usual = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        values = self.model_dump(mode="json", exclude=usual | self.volatile)
        inner = {name: value.identity() for name, value in self if isinstance(value, Record) and name in values}
        return {**values, **inner}


class FileRef(Record):
    """A file of the run, by content."""

    path: str
    """Relative to the run directory, with forward slashes."""
    sha256: str
    bytes: int
