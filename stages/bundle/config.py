"""Settings of the bundle, out of those of export (torch-free)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from vitcompress.core.artifact_records import Precision
from vitcompress.core.record import Record


class BundleConfig(Record):
    """What the bundle may hold; every field is one of ``export``."""

    volatile: ClassVar[frozenset[str]] = frozenset({"config_sha256"})

    deploy: Precision | Literal["fastest"]
    max_int8_drop: float
    targets: tuple[str, ...]
    """What is made: some targets add files of their own to the bundle."""
    opt_batch: int
    max_batch: int
    """Batches that Triton gathers of an ONNX graph, which has no limits of its own."""
    judging: dict[str, Any] | None = None
    """Sections ``verify`` and ``gates`` of the run, by which another machine judges; None for a bundle without
    ``judge/``."""
    config_sha256: str = ""
    """SHA-256 of the run's ``config.yaml``, for ``provenance.json``."""
