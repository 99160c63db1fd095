"""Re-parameterisable networks (RepVGG, MobileOne, RepViT, FastViT, LeViT, ...) as they are deployed.

Such a block trains several linear branches side by side, each with a batch norm, and in eval mode their sum is one
convolution: ``W * x + b`` for each branch and for the norm after it, and sums of these are of the same form.
Plain pairs of convolution and batch norm are left alone: torch's ONNX exporter folds them itself (docs/networks.md).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from timm.utils import reparameterize_model
from torch import nn

from vitcompress.stages.models.students import network_inside

FUSED = "branches and norms of re-parameterisable blocks as one convolution each"


@torch.no_grad()
def fuse(module: nn.Module) -> bool:
    """Fuse, in place and in eval mode, whatever timm can of a network; return whether that was anything.

    ``module`` is a timm network or a student of any strategy. Its dtype decides how exact the result is.
    """
    inside = network_inside(module)
    kinds = [type(part) for part in inside.modules()]
    default = torch.get_default_dtype()
    torch.set_default_dtype(next(inside.parameters()).dtype)  # timm makes the fused layers in torch's default
    try:
        reparameterize_model(inside, inplace=True)
    finally:
        torch.set_default_dtype(default)
    return kinds != [type(part) for part in inside.modules()]


def fused(module: nn.Module) -> nn.Module:
    """Return the network as it is deployed, in eval mode, ``module`` itself where there is nothing to fuse."""
    copy = deepcopy(module).eval()
    return copy if fuse(copy) else module
