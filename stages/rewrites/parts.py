"""The parts an isotropic ViT is taken apart into for deployment, whatever family it comes from.

A ``Network`` computes what timm's forward computes in eval mode, with what the rewrites choose in the open: which
tokens a block answers for, and what is constant.

Shape suffixes: B batch, T tokens (prefix and patches), p prefix tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.stages.rewrites.tokens import ALL, Span, Tokens


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each added to its input."""

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.enter: nn.Module = nn.Identity()
        """What a widened block puts before: a linear map and a LayerNorm."""
        self.norm1, self.norm2, self.mlp = norm1, norm2, mlp
        self.attention: Any = attention
        self.span = ALL
        """Tokens whose output is computed; all of them are attended to."""

    def forward(self, x: Tokens) -> Tokens:
        """Map tokens to those in ``span`` (a widened block changes their width)."""
        x = x.map(self.enter)
        attended = self.attention(x.map(self.norm1), self.span)
        x = x.read(self.span).plus(attended)
        return x.plus(x.map(self.norm2).map(self.mlp))


class Embedding(nn.Module):
    """Patches, positions added to them, prefix tokens (class, registers; with their positions) before them.

    The patches are those of a convolution whose stride is its kernel.
    """

    def __init__(self, convolution: nn.Conv2d, prefix_1pD: Tensor | None, position_1PD: Tensor | None) -> None:
        super().__init__()
        self.convolution = convolution
        self.patch_norm: nn.Module = nn.Identity()
        self.prefix_1pD = None if prefix_1pD is None else nn.Parameter(prefix_1pD.detach().clone())
        self.position_1PD = None if position_1PD is None else nn.Parameter(position_1PD.detach().clone())
        self.norm: nn.Module = nn.Identity()

    def forward(self, images: Tensor) -> Tokens:
        """Make tokens of images."""
        x_BDP = self.convolution(images).flatten(2)
        x = Tokens(x_BDP.permute(2, 0, 1).flatten(0, 1), x_BDP.shape[2]).map(self.patch_norm)
        if self.position_1PD is not None:
            x = x.offset(self.position_1PD)
        if self.prefix_1pD is not None:
            x = x.after(self.prefix_1pD)
        return x.map(self.norm)


class Readout(nn.Module):
    """From the last block's tokens to logits ``[B, K]``. ``span`` says which of the tokens it is given are read."""

    span: Span = ALL


class TokenReadout(Readout):
    """One classifier a prefix token (one class token; DeiT's distilled networks have two), their logits averaged."""

    def __init__(self, norm: nn.Module, heads: list[nn.Module]) -> None:
        super().__init__()
        self.norm, self.heads = norm, nn.ModuleList(heads)
        self.span = Span(0, len(heads))

    def forward(self, x: Tokens) -> Tensor:
        """Return the logits."""
        x_TBD = x.read(self.span).map(self.norm).stacked()
        logits = [head(x_TBD[index]) for index, head in enumerate(self.heads)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)


class MeanReadout(Readout):
    """The classifier reads the mean of the tokens."""

    def __init__(self, norm: nn.Module, mean_norm: nn.Module, head: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.mean_norm, self.head = norm, mean_norm, head
        self.span = Span(prefix)

    def forward(self, x: Tokens) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.mean_norm(x.read(self.span).map(self.norm).stacked().mean(dim=0)))
        return logits


class RootNorm(nn.Module):
    """What is left of a folded lift's norm: ``z / sqrt(|R z|^2 + eps)``, see ``stages.rewrites.lift``."""

    def __init__(self, root: nn.Linear, eps: float) -> None:
        super().__init__()
        self.root, self.eps = root, eps

    def forward(self, z: Tensor) -> Tensor:
        """Return tokens over their lifted standard deviation."""
        return z * torch.rsqrt(self.root(z).square().sum(dim=-1, keepdim=True) + self.eps)


class ClassAttentionReadout(Readout):
    """CaiT's: a class token goes through blocks of its own, which read the patch tokens and leave them as they are."""

    def __init__(self, token_11D: Tensor, blocks: list[Block], norm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.token_11D = nn.Parameter(token_11D.detach().clone())
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm, self.head = norm, head

    def forward(self, x: Tokens) -> Tensor:
        """Return the logits."""
        joined = x.after(self.token_11D)
        for index, block in enumerate(self.blocks):
            token = block(joined)
            if index + 1 < len(self.blocks):
                joined = Tokens(torch.cat([token.x, x.x]), 1 + x.count)
        logits: Tensor = self.head(token.map(self.norm).x)
        return logits


class Network(nn.Module):
    """An isotropic ViT in parts: images ``[B, 3, S, S]`` to logits ``[B, K]``."""

    def __init__(self, embedding: Embedding, blocks: list[Block], readout: Readout) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks: Any = nn.ModuleList(blocks)
        self.readout: Any = readout

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x = self.embedding(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.readout(x)
        return logits
