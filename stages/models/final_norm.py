"""The norm that a network ends with, before its classifier."""

from __future__ import annotations

from typing import Any

from timm.layers import LayerNorm2d
from torch import nn

from vitcompress.stages.models.students import FoldedLift, LiftStudent


def final_norm(model: nn.Module) -> tuple[nn.Module, int] | None:
    """The final norm and its width; None where there is none that works token by token over channels.

    timm's ``norm``, or ``fc_norm`` of networks that have it after the mean over tokens instead. A lifted student ends
    with its projector's norm, which stands before the tap already.
    """
    if isinstance(model, (LiftStudent, FoldedLift)):
        return None
    for name in ("norm", "fc_norm"):
        norm: Any = getattr(model, name, None)
        shape = getattr(norm, "normalized_shape", None)
        if isinstance(norm, nn.Module) and not isinstance(norm, LayerNorm2d) and shape is not None and len(shape) == 1:
            return norm, int(shape[-1])
    return None
