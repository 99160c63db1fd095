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
    """Largest growth of the latency at batch 1 relative to the teacher's in the same run, percent."""
    max_growth: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Largest growth of the model on disk, percent."""
