"""Settings of folding (torch-free)."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record


class FoldConfig(Record):
    """What happens to a lift's projector at deployment."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    tolerance: float = Field(1e-4, gt=0)
    """Largest accepted difference in logits between the folded and the kept graph, float32, on real images."""
    images: int = Field(64, gt=0)
    """Held-out images they are compared on."""
