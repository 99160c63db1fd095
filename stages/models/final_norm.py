"""The norm that a network ends with, before its classifier."""

from __future__ import annotations

from typing import Any

from torch import nn

from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import FoldedLift, LiftStudent


def final_norm(model: nn.Module) -> tuple[nn.Module, int] | None:
    """Return the final norm and its width; None where there is none that works token by token over channels.

    A lifted student ends with its projector's norm, which stands before the tap already.
    """
    norm: Any = None if isinstance(model, (LiftStudent, FoldedLift)) else family_of(model).final_norm(model)
    return None if norm is None else (norm, int(norm.normalized_shape[-1]))
