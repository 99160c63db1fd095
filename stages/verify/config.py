"""What is measured about the artifacts, for how long, and which limits they must keep."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from core.record import Record

ARTIFACTS = ("onnx", "engine")
"""Artifacts a gate can be applied to. Each is also the ``runtime`` of its rows in a VerifyRecord."""


class VerifyConfig(Record):
    """How long and how carefully the artifacts are measured."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    batch_sizes: tuple[Annotated[int, Field(gt=0)], ...] = (1, 8)
    """Batch sizes, images, at which latency is measured; 1 must be among them, for the gates read it."""
    latency_seconds: float = Field(20.0, gt=0, allow_inf_nan=False)
    """Seconds for all latency measuring together, shared out over batch sizes and runtimes."""
    threads: int = Field(0, ge=0)
    """CPU threads of a session; 0: all physical cores this process may use."""
    bootstrap: int = Field(2000, ge=100)
    """Bootstrap resamples behind each interval of a latency or a speed-up."""

    @model_validator(mode="after")
    def _batch_sizes_usable(self) -> Self:
        if 1 not in self.batch_sizes or len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError(f"batch_sizes is {list(self.batch_sizes)}; give distinct sizes with 1 among them.")
        return self


class GatesConfig(Record):
    """Limits on the measured numbers; a limit that is None is not judged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_accuracy_drop: float | None = Field(None, ge=-100, le=100)
    """Largest loss of top-1 against the teacher, points (negative: the student must be better)."""
    min_accuracy: float | None = Field(None, ge=0, le=100)
    """Smallest top-1 on the held-out images, percent."""
    min_speedup: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Smallest ratio of the teacher's median latency to the student's, ONNX Runtime, batch 1."""
    max_latency_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest median latency at batch 1, milliseconds."""
    max_size_mb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest file, megabytes of 10^6 bytes."""
    artifacts: tuple[str, ...] = Field(ARTIFACTS, min_length=1)
    """Artifacts the limits are applied to: ``onnx``, ``engine``."""
    require: tuple[str, ...] = ("onnx",)
    """Artifacts for which ``unmeasured`` fails the run; each must be among ``artifacts``."""
    require_conclusive: bool = False
    """Whether ``inconclusive`` fails the run too, for the artifacts in ``require``."""

    @model_validator(mode="after")
    def _artifacts_known(self) -> Self:
        for name, given, allowed in (
            ("artifacts", self.artifacts, ARTIFACTS),
            ("require", self.require, self.artifacts),
        ):
            if len(set(given)) != len(given) or not set(given) <= set(allowed):
                raise ValueError(f"{name} is {list(given)}; give each at most once, out of {list(allowed)}.")
        return self
