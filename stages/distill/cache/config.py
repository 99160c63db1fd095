"""Settings of the teacher cache (torch-free)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record


class CacheConfig(Record):
    """Where the teacher's answers are kept, and how much of the disk they may take."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = frozenset({"max_gb", "folder"})

    max_gb: float = Field(20.0, gt=0)
    """Decimal gigabytes of disk that the folder of caches may take."""
    folder: str | None = Field(None, min_length=1)
    """Folder that several runs of one teacher share; null keeps the cache in the run, under RUN/cache."""
    chunk_mb: float = Field(256.0, gt=0)
    """Decimal megabytes that one file of the cache may take; what a crash may cost, a quantity."""
