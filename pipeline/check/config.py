"""Settings of comparing a run with a baseline (torch-free)."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from vitcompress.stages.gates.names import ArtifactChoice


class CheckConfig(ArtifactChoice):
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
