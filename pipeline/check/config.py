"""Settings of comparing a run with a baseline."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from vitcompress.core.record import Record
from vitcompress.stages.gates.names import ALL, NAMES, ROLES, refuse_unjudged, refuse_unknown


class CheckConfig(Record):
    """How much worse than its baseline a run may be; a limit that is None is not judged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_accuracy_loss: float | None = Field(0.0, ge=0, le=100)
    """Largest loss of top-1 against the baseline on the same images, points."""
    max_slowdown: float | None = Field(3.0, ge=0, allow_inf_nan=False)
    """Largest growth of the latency relative to the teacher's in the same run, percent."""
    max_latency_growth: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Largest growth of the latency itself, percent; judged only on the hardware of the baseline."""
    max_growth: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Largest growth of the model on disk, percent."""
    confidence: float = Field(0.98, ge=0.5, le=0.9999)
    """Of the intervals that the limits are tested against: at 0.98 a change that is exactly at its limit is taken for
    one beyond it once in a hundred times."""
    batch: int = Field(1, gt=0)
    """Batch size, images, at which latencies are compared; one of verify.batch_sizes, in the baseline too."""
    artifacts: tuple[str, ...] = Field(ROLES, min_length=1)
    """Artifacts that are compared: `onnx` and `engine` (the recommended one of each kind), by name such as
    `onnx-int8`, or `all` that the baseline or the run has. Every one more is one more chance of a false alarm."""
    require: tuple[str, ...] = ("onnx",)
    """Artifacts for which `unmeasured` fails the check; each must be compared."""
    require_conclusive: bool = False
    """Whether `inconclusive` fails the check too, for the artifacts in `require`."""

    @model_validator(mode="after")
    def _artifacts_known(self) -> Self:
        refuse_unknown("artifacts", self.artifacts, (*ROLES, *NAMES, ALL))
        refuse_unjudged(self.require, (*ROLES, *NAMES) if ALL in self.artifacts else self.artifacts)
        return self
