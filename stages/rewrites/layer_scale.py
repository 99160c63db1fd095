"""LayerScale into the projection before it.

A block adds ``g * f(x)`` with one factor a channel, and f ends in a linear layer (attention's projection, the MLP's
second layer) with nothing but inactive dropout after it:

    g * (W h + b) = (diag(g) W) h + g * b
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitcompress.stages.rewrites.parts import Network
from vitcompress.stages.rewrites.rewritten import Rewritten, copy_of


def fold_layer_scale(network: Network) -> Rewritten:
    """LayerScale of CaiT, DeiT-III and BEiT folded away."""
    if all(block.scale1 is None and block.scale2 is None for block in network.every_block()):
        return Rewritten(network, False, "LayerScale: the network has none")
    network = copy_of(network)
    for block in network.every_block():
        mlp: Any = block.mlp
        project = getattr(block.attention, "inner", block.attention).project
        for scale, linear in ((block.scale1, project), (block.scale2, mlp.fc2)):
            if scale is not None:
                _scale_rows(linear, scale)
        block.scale1 = block.scale2 = None
    return Rewritten(network, True, "LayerScale in the projections")


@torch.no_grad()
def _scale_rows(linear: Any, scale_D: Tensor) -> None:
    linear.weight.mul_(scale_D[:, None])
    if linear.bias is not None:
        linear.bias.mul_(scale_D)
