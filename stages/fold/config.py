"""Settings of folding (torch-free)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record
from vitcompress.core.records import WhichWeights


class FoldConfig(Record):
    """Which of the student's weights are deployed, and what happens to a lift's projector."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    later: ClassVar[frozenset[str]] = frozenset({"weights"})

    weights: WhichWeights = "chosen"
    """chosen: the better of raw and averaged weights after the last epoch; last: the raw ones; average: the averaged
    ones; best: those of the evaluation with the highest score, which held-out images that judge them also chose."""

    tolerance: float = Field(1e-4, gt=0)
    """Largest accepted difference in logits between the folded and the kept graph, float32, on real images."""
    images: int = Field(64, gt=0)
    """Held-out images they are compared on."""
