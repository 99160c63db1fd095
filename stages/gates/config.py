"""Settings of judging: the limits (torch-free)."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from core.record import Record

ARTIFACTS = ("onnx", "engine")
"""Artifacts a gate can be applied to: of each kind the one that the bundle recommends."""


NO_TEACHER_ENGINE = (
    "an engine's speed-up is never measured: no engine is built of the teacher, so there is nothing to compare with; "
    "limit gates.max_latency_ms instead"
)
"""Why ``min_speedup`` of an engine is always unmeasured."""


class GatesConfig(Record):
    """Limits on the measured numbers; a limit that is None is not judged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_accuracy_drop: float | None = Field(None, ge=-100, le=100)
    """Largest loss of top-1 against the teacher, points (negative: the student must be better)."""
    min_accuracy: float | None = Field(None, ge=0, le=100)
    """Smallest top-1 on the held-out images, percent."""
    min_speedup: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Smallest ratio of the teacher's median latency to the student's, ONNX Runtime, batch 1; never of an engine."""
    max_latency_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest median latency at batch 1, milliseconds."""
    max_size_mb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest model on disk, its weights file included, megabytes of 10^6 bytes."""
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
