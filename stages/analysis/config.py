"""Settings of the analysis of features (torch-free), shared by reading the teacher and watching the student."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record


class AnalysisConfig(Record):
    """Which images the networks are read on, and what that may cost."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    images: int = Field(1000, ge=0)
    """Training images that every network is read on, spread evenly over them; 0: no analysis."""
    batch_size: int = Field(16, gt=0)
    """Images a forward pass."""
    memory_mb: int = Field(1500, gt=0)
    """Memory (10^6 bytes) for the tokens of images that are looked at a second time, once the shared basis and the
    range of values are known: all images at the last tap, and as many as fit at the others."""
