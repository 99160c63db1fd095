"""Class token, positions and the patch embedding's bias as constants made once.

timm puts the prefix tokens c before the patches and adds the positions e to all: ``[c; W x + b] + e``. Row by row that
is ``[c + e_0; W x + (b + e_1..)]``: the first row does not depend on the image, and each patch has one constant of its
own. One addition and one concatenation are left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.stages.rewrites.parts import Embedding, Network
from vitcompress.stages.rewrites.rewritten import Rewritten, copy_of
from vitcompress.stages.rewrites.tokens import Tokens


class ConstantEmbedding(Embedding):
    """Patches, their constants added, then constant rows before them."""

    def forward(self, images: Tensor) -> Tokens:
        """Images to tokens."""
        x: Tokens = self.patches(images, self.tokens_first).map(self.patch_norm)
        if self.position_1TD is not None:
            x = x.offset(self.position_1TD)
        if self.prefix_1pD is not None:
            x = x.after(self.prefix_1pD)
        return x.map(self.norm)


@torch.no_grad()
def precompute_constants(network: Network) -> Rewritten:
    """The embedding with its constants made once."""
    before = network.embedding
    if before.position_1TD is None:
        return Rewritten(network, False, "constants: the network has no table of positions")
    network = copy_of(network)
    count = 0 if before.prefix_1pD is None else before.prefix_1pD.shape[1]
    position = before.position_1TD.detach().clone()
    prefix = None if before.prefix_1pD is None else before.prefix_1pD + position[:, :count]
    patches = position[:, count:]
    projection = _projection(network.embedding.patches)
    if isinstance(before.patch_norm, nn.Identity) and projection.bias is not None:
        patches = patches + projection.bias
        projection.bias = None
    embedding = ConstantEmbedding(network.embedding.patches, prefix, patches)
    embedding.patch_norm, embedding.norm = network.embedding.patch_norm, network.embedding.norm
    embedding.tokens_first = before.tokens_first
    network.embedding = embedding
    return Rewritten(network, True, "positions and class token as constants")


def _projection(patches: Any) -> Any:
    return patches.convolution if hasattr(patches, "convolution") else patches.linear
