"""The parts an isotropic ViT is taken apart into before it is rewritten, whatever family it comes from.

A ``Network`` computes what timm's forward computes in eval mode, with every choice that a rewrite makes held in the
open: which tokens a block answers for, where scales and biases are, what is constant. Each rewrite is then a change of
one kind of part.

Shape suffixes: B batch, T tokens (prefix and patches), p prefix tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.stages.rewrites.tokens import ALL, Span, Tokens


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each added to its input, each scaled where it has a LayerScale."""

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.enter: nn.Module = nn.Identity()
        """What a widened block puts before: a linear map and a LayerNorm."""
        self.norm1, self.norm2, self.mlp = norm1, norm2, mlp
        self.attention: Any = attention
        self.scale1: nn.Parameter | None = None
        self.scale2: nn.Parameter | None = None
        self.span = ALL
        """Tokens whose output is computed; all of them are attended to."""

    def forward(self, x: Tokens) -> Tokens:
        """Map tokens to those in ``span`` (a widened block changes their width)."""
        x = x.map(self.enter)
        attended = self.attention(x.map(self.norm1), self.span)
        x = x.read(self.span).plus(_scaled(attended, self.scale1))
        return x.plus(_scaled(x.map(self.norm2).map(self.mlp), self.scale2))


def _scaled(x: Tokens, scale_D: Tensor | None) -> Tokens:
    return x if scale_D is None else x.map(lambda values: scale_D * values)


class ConvPatches(nn.Module):
    """Patch embedding as trained: a convolution whose stride is its kernel. Images ``[B, 3, S, S]`` to patch tokens."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    @property
    def linear_map(self) -> nn.Conv2d:
        """Return what has the weights and the bias."""
        return self.convolution

    def forward(self, images: Tensor, first: bool) -> Tokens:
        """Return patch tokens, tokens first or not."""
        x_BDP = self.convolution(images).flatten(2)
        if not first:
            return Tokens.of(x_BDP.transpose(1, 2))
        return Tokens(x_BDP.permute(2, 0, 1).flatten(0, 1), x_BDP.shape[2], first=True)


class Embedding(nn.Module):
    """Patches, prefix tokens (class, registers) before them, positions added to all."""

    def __init__(self, patches: nn.Module, prefix_1pD: Tensor | None, position_1TD: Tensor | None) -> None:
        super().__init__()
        self.patches: Any = patches
        self.patch_norm: nn.Module = nn.Identity()
        self.prefix_1pD = None if prefix_1pD is None else nn.Parameter(prefix_1pD.detach().clone())
        self.position_1TD = None if position_1TD is None else nn.Parameter(position_1TD.detach().clone())
        self.norm: nn.Module = nn.Identity()
        self.tokens_first = False
        self.constant_prefix = False
        """Whether the prefix tokens have their positions already, so that positions are the patches' alone."""

    def forward(self, images: Tensor) -> Tokens:
        """Make tokens of images."""
        x: Tokens = self.patches(images, self.tokens_first).map(self.patch_norm)
        if self.prefix_1pD is not None and not self.constant_prefix:
            x = x.after(self.prefix_1pD)
        if self.position_1TD is not None:
            x = x.offset(self.position_1TD)
        if self.prefix_1pD is not None and self.constant_prefix:
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
        x = x.read(self.span).map(self.norm)
        logits = [head(x.token(index)) for index, head in enumerate(self.heads)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)


class MeanReadout(Readout):
    """The classifier reads the mean of the tokens."""

    def __init__(self, norm: nn.Module, mean_norm: nn.Module, head: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.mean_norm, self.head = norm, mean_norm, head
        self.span = Span(prefix)

    def forward(self, x: Tokens) -> Tensor:
        """Return the logits."""
        x = x.read(self.span)
        logits: Tensor = self.head(self.mean_norm(x.map(self.norm).mean()))
        return logits


class FoldedReadout(Readout):
    """A folded lift's: ``head(mean_t z_t / sqrt(|R z_t|^2 + eps))``, see ``stages.rewrites.lift``."""

    def __init__(self, root: nn.Linear, head: nn.Linear, eps: float, prefix: int) -> None:
        super().__init__()
        self.root, self.head, self.eps = root, head, eps
        self.span = Span(prefix)

    def forward(self, x: Tokens) -> Tensor:
        """Return the logits."""
        x = x.read(self.span)
        logits: Tensor = self.head(x.map(self.scaled).mean())
        return logits

    def scaled(self, z: Tensor) -> Tensor:
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
        x = x.read(self.span)
        joined = x.after(self.token_11D)
        for index, block in enumerate(self.blocks):
            token = block(joined)
            if index + 1 < len(self.blocks):
                joined = _joined(token, x)
        logits: Tensor = self.head(token.map(self.norm).token(0))
        return logits


def _joined(one: Tokens, other: Tokens) -> Tokens:
    """Join two sequences."""
    count = one.count + other.count
    if one.first:
        return Tokens(torch.cat([one.x, other.x]), count, first=True)  # rows are in order of the tokens
    return Tokens(torch.cat([one.x, other.x], dim=1), count, first=False)


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

    def every_block(self) -> list[Block]:
        """Return the blocks of the trunk and those of a class-attention readout."""
        extra: list[Block] = list(self.readout.blocks) if isinstance(self.readout, ClassAttentionReadout) else []
        return [*self.blocks, *extra]
