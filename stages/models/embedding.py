"""Networks that give an embedding: a teacher without its classifier, and what of it and of its student is deployed."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcompress.core.records import ModelSpec

_WIDTHS = 64
"""What widths are multiples of, and no number of classes in timm's pretrained configurations is."""
_LEAST = 1e-4
"""Instead of a smaller norm: also in fp16 no zero."""


def projection_of(name: str) -> int:
    """Return the width of the projection that timm's pretrained network ``name`` ends in; 0 where it ends in a pooling.

    A CLIP tower's last layer maps its pooled features to the space that images and texts share; timm keeps it where it
    would have a classifier, and its width as the number of classes: 384 to 1,280, multiples of 64. Those of labels
    (1,000, 11,221, 21,841, ...) are not. Of all other networks the pooled features are the embedding.
    """
    published = timm.get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    outputs = published.num_classes if published is not None else 0
    return outputs if outputs % _WIDTHS == 0 else 0


@torch.no_grad()
def embedding_width(network: nn.Module, size: int, channels: int = 3) -> int:
    """Return the width E of what a network gives, ``[B, E]``, for images ``[B, channels, size, size]``."""
    device = next(network.parameters()).device
    return int(network.eval()(torch.zeros(1, channels, size, size, device=device)).shape[-1])


class Normalised(nn.Module):
    """A network whose embeddings ``[B, E]`` have length 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images to embeddings of length 1; the largest number becomes 1 first, so that squares fit into fp16."""
        embedding_BE = self.network(images)
        scaled_BE = embedding_BE / embedding_BE.abs().amax(dim=-1, keepdim=True).clamp_min(_LEAST)
        return F.normalize(scaled_BE, dim=-1, eps=_LEAST)


def as_deployed(network: nn.Module, spec: ModelSpec) -> nn.Module:
    """Return the network of ``spec`` with what it ends in once it is deployed."""
    return network if spec.embedding is None else Normalised(network)
