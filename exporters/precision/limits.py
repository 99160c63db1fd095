"""How far a reduced graph may be from fp32 before nodes are left in fp32."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.artifact_records import Precision
from vitcompress.exporters.precision.compare import Deviation


@dataclass(frozen=True)
class Limits:
    """Limits on ``compare.Deviation``, over the checked images."""

    difference: float
    """Largest logit difference over the fp32 logits' spread (mean over images of largest minus smallest logit)."""
    agreement: float
    """Smallest share of images with fp32's top-1, 0 to 1."""

    def met_by(self, found: Deviation) -> bool:
        """Return whether a deviation is within both limits."""
        return found.relative <= self.difference and found.agreement >= self.agreement


_DEFAULTS: dict[Precision, Limits] = {
    "fp16": Limits(difference=0.01, agreement=0.98),
    "bf16": Limits(difference=0.06, agreement=0.95),
    "int8": Limits(difference=0.15, agreement=0.9),
    "fp8": Limits(difference=0.2, agreement=0.9),
}
"""Three to nine times what trained networks showed (docs/precision.md): they catch what is broken, not what is coarse.

What coarseness costs in accuracy is for a gate on the whole held-out set to tell.
"""


def default_limits(precision: Precision) -> Limits:
    """Return the limits of a reduced precision."""
    return _DEFAULTS[precision]
