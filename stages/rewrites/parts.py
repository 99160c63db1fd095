"""The parts an isotropic ViT is taken apart into before it is rewritten, whatever family it comes from.

A ``Network`` computes what timm's forward computes in eval mode, with every choice that a rewrite makes held in the
open: which tokens a block answers for, where scales and biases are, what is constant. Each rewrite is then a change of
one kind of part.

Shape suffixes: B batch, T tokens (prefix and patches), P patches, R tokens read, D width, H heads, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn


@dataclass(frozen=True)
class Span:
    """Tokens ``start`` to ``stop`` (None: the last) of a sequence."""

    start: int = 0
    stop: int | None = None

    @property
    def everything(self) -> bool:
        """Whether no token is left out."""
        return self.start == 0 and self.stop is None

    @property
    def count(self) -> int | None:
        """Number of tokens, None where it depends on the sequence."""
        return None if self.stop is None else self.stop - self.start

    def of(self, x: Tensor, axis: int = 1) -> Tensor:
        """These tokens of ``x``."""
        if self.everything:
            return x
        return x.narrow(axis, self.start, (x.shape[axis] if self.stop is None else self.stop) - self.start)


ALL = Span()


class Rotation(nn.Module):
    """Rotary positions of the patch tokens; prefix tokens are left as they are (timm's layout of sines and cosines)."""

    angles: Tensor

    def __init__(self, angles: Tensor, prefix: int, half: bool) -> None:
        super().__init__()
        self.register_buffer("angles", angles.detach().clone())
        self.prefix = prefix
        self.half = half

    def forward(self, x_BHTd: Tensor, span: Span = ALL) -> Tensor:
        """Queries or keys of the tokens in ``span``, rotated."""
        plain = max(0, self.prefix - span.start)
        if span.stop is not None and span.stop <= self.prefix:
            return x_BHTd
        if span.stop is not None:
            raise ValueError(f"rotary positions are taken of all tokens, or up to the last; {span} was given.")
        angles = self.angles[..., max(0, span.start - self.prefix) :, :]
        turned = apply_rot_embed_cat(x_BHTd[:, :, plain:], angles, half=self.half)
        return turned if plain == 0 else torch.cat([x_BHTd[:, :, :plain], turned], dim=2)


class PermutedMix(nn.Module):
    """CaiT's talking heads as trained: a linear map over the heads of ``[B, H, T, T]``, between two permutations."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, scores_BHRT: Tensor) -> Tensor:
        """Mixed scores, same shape."""
        mixed: Tensor = self.linear(scores_BHRT.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return mixed


class LeftMix(nn.Module):
    """Talking heads as one matrix product from the left, without a bias."""

    def __init__(self, weight_HH: Tensor) -> None:
        super().__init__()
        self.weight_HH = nn.Parameter(weight_HH.detach().clone())

    def forward(self, scores_BHRT: Tensor) -> Tensor:
        """Mixed scores, same shape."""
        heads, rows, columns = scores_BHRT.shape[1:]
        return (self.weight_HH @ scores_BHRT.reshape(-1, heads, rows * columns)).reshape(-1, heads, rows, columns)


class Attention(nn.Module):
    """Self-attention of ViT, DeiT, BEiT, EVA and CaiT with its parts in the open; see ``attend`` for the formula."""

    bias_1HTT: Tensor | None

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, project: nn.Linear, heads: int, scale: float
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.project = query, key, value, project
        self.heads = heads
        self.scale = scale
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        self.inner_norm: nn.Module = nn.Identity()
        self.gate: nn.Module | None = None
        self.rotation: Rotation | None = None
        self.mix_scores: nn.Module | None = None
        self.mix_weights: nn.Module | None = None
        self.sum_bias_H11: Tensor | None = None
        self.register_buffer("bias_1HTT", None)

    def split(self, x_BTA: Tensor) -> Tensor:
        """``[B, T, H d]`` to ``[B, H, T, d]``."""
        return x_BTA.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, u_BTD: Tensor, span: Span = ALL) -> Tensor:
        """What the tokens in ``span`` take from all tokens, ``[B, R, D]``.

        ``project(norm(softmax(mix(scale q k^T + bias)) v))``, each of mix, bias, norm and gate where the family has it.
        """
        read = span.of(u_BTD)
        q = self.query_norm(self.split(self.query(read)))
        k = self.key_norm(self.split(self.key(u_BTD)))
        v = self.split(self.value(u_BTD))
        if self.rotation is not None:
            q, k = self.rotation(q, span), self.rotation(k)
        if self.scale != 1.0:
            q = q * self.scale
        scores = q @ k.transpose(-2, -1)
        out = self.weights(scores, span) @ v
        if self.sum_bias_H11 is not None:
            out = out + self.sum_bias_H11 * v.sum(dim=2, keepdim=True)
        return self.finish(out, read)

    def weights(self, scores_BHRT: Tensor, span: Span) -> Tensor:
        """Attention weights of scaled scores."""
        if self.bias_1HTT is not None:
            scores_BHRT = scores_BHRT + span.of(self.bias_1HTT, axis=2)
        if self.mix_scores is not None:
            scores_BHRT = self.mix_scores(scores_BHRT)
        weights = scores_BHRT.softmax(dim=-1)
        return weights if self.mix_weights is None else self.mix_weights(weights)

    def finish(self, out_BHRd: Tensor, read_BRD: Tensor) -> Tensor:
        """Heads joined, normalised, gated and projected."""
        joined = self.inner_norm(out_BHRd.transpose(1, 2).flatten(2))
        if self.gate is not None:
            joined = joined * self.gate(read_BRD).sigmoid()
        projected: Tensor = self.project(joined)
        return projected


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each added to its input, each scaled where it has a LayerScale."""

    def __init__(self, norm1: nn.Module, attention: Attention, norm2: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.enter: nn.Module = nn.Identity()
        self.norm1, self.attention, self.norm2, self.mlp = norm1, attention, norm2, mlp
        self.scale1: nn.Parameter | None = None
        self.scale2: nn.Parameter | None = None
        self.span = ALL

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Tokens ``[B, T, D]`` to those in ``span``, ``[B, R, D]`` (a widened block changes D)."""
        x_BTD = self.enter(x_BTD)
        attended = self.attention(self.norm1(x_BTD), self.span)
        x_BRD = self.span.of(x_BTD) + (attended if self.scale1 is None else self.scale1 * attended)
        changed = self.mlp(self.norm2(x_BRD))
        return x_BRD + (changed if self.scale2 is None else self.scale2 * changed)


class ConvPatches(nn.Module):
    """Patch embedding as trained: a convolution whose stride is its kernel. Images ``[B, 3, S, S]`` to ``[B, P, D]``."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens."""
        tokens: Tensor = self.norm(self.convolution(images).flatten(2).transpose(1, 2))
        return tokens


class Embedding(nn.Module):
    """Patches, prefix tokens (class, registers) before them, positions added to all."""

    def __init__(
        self, patches: nn.Module, prefix_1pD: Tensor | None, position_1TD: Tensor | None, norm: nn.Module
    ) -> None:
        super().__init__()
        self.patches = patches
        self.prefix_1pD = None if prefix_1pD is None else nn.Parameter(prefix_1pD.detach().clone())
        self.position_1TD = None if position_1TD is None else nn.Parameter(position_1TD.detach().clone())
        self.norm = norm

    def forward(self, images: Tensor) -> Tensor:
        """Tokens ``[B, T, D]``."""
        x_BTD: Tensor = self.patches(images)
        if self.prefix_1pD is not None:
            x_BTD = torch.cat([self.prefix_1pD.expand(x_BTD.shape[0], -1, -1), x_BTD], dim=1)
        if self.position_1TD is not None:
            x_BTD = x_BTD + self.position_1TD
        normed: Tensor = self.norm(x_BTD)
        return normed


class Readout(nn.Module):
    """From the last block's tokens to logits. ``span`` says which of the tokens it is given are read."""

    span: Span

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Logits ``[B, K]``."""
        return self.read(self.span.of(x_BTD))

    def read(self, x_BRD: Tensor) -> Tensor:
        """Logits of the tokens read."""
        raise NotImplementedError


class TokenReadout(Readout):
    """One classifier a prefix token (one class token; DeiT's distilled networks have two), their logits averaged."""

    def __init__(self, norm: nn.Module, heads: list[nn.Module]) -> None:
        super().__init__()
        self.norm, self.heads = norm, nn.ModuleList(heads)
        self.span = Span(0, len(heads))

    def read(self, x_BRD: Tensor) -> Tensor:
        """Logits of the tokens read."""
        x_BRD = self.norm(x_BRD)
        logits = [head(x_BRD[:, index]) for index, head in enumerate(self.heads)]
        return logits[0] if len(logits) == 1 else sum(logits[1:], logits[0]) / len(logits)


class MeanReadout(Readout):
    """The classifier reads the mean of the tokens."""

    def __init__(self, norm: nn.Module, mean_norm: nn.Module, head: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.mean_norm, self.head = norm, mean_norm, head
        self.span = Span(prefix)

    def read(self, x_BRD: Tensor) -> Tensor:
        """Logits of the tokens read."""
        logits: Tensor = self.head(self.mean_norm(self.norm(x_BRD).mean(dim=1)))
        return logits


class FoldedReadout(Readout):
    """A folded lift's: ``head(mean_t z_t / sqrt(|R z_t|^2 + eps))``, see ``stages.rewrites.lift``."""

    def __init__(self, root: nn.Linear, head: nn.Linear, eps: float, prefix: int) -> None:
        super().__init__()
        self.root, self.head, self.eps = root, head, eps
        self.span = Span(prefix)

    def read(self, x_BRD: Tensor) -> Tensor:
        """Logits of the tokens read."""
        inverse_BR1 = torch.rsqrt(self.root(x_BRD).square().sum(dim=-1, keepdim=True) + self.eps)
        logits: Tensor = self.head((x_BRD * inverse_BR1).mean(dim=1))
        return logits


class ClassAttentionReadout(Readout):
    """CaiT's: a class token goes through blocks of its own, which read the patch tokens and leave them as they are."""

    def __init__(self, token_11D: Tensor, blocks: list[Block], norm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.token_11D = nn.Parameter(token_11D.detach().clone())
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = norm, head
        self.span = ALL

    def read(self, x_BRD: Tensor) -> Tensor:
        """Logits of the tokens read."""
        token = self.token_11D.expand(x_BRD.shape[0], -1, -1)
        for block in self.blocks:
            token = block(torch.cat([token, x_BRD], dim=1))
        logits: Tensor = self.head(self.norm(token)[:, 0])
        return logits


class Network(nn.Module):
    """An isotropic ViT in parts: images ``[B, 3, S, S]`` to logits ``[B, K]``."""

    def __init__(self, embedding: nn.Module, blocks: list[Block], readout: Readout) -> None:
        super().__init__()
        self.embedding: Any = embedding
        self.blocks: Any = nn.ModuleList(blocks)
        self.readout = readout

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x: Tensor = self.embedding(images)
        for block in self.blocks:
            x = block(x)
        return self.readout(x)

    def every_block(self) -> list[Block]:
        """The blocks of the trunk and those of a class-attention readout."""
        extra = self.readout.blocks if isinstance(self.readout, ClassAttentionReadout) else []
        return [*self.blocks, *extra]
