"""Self-attention of ViT, DeiT, BEiT, EVA and CaiT with its parts in the open.

Shape suffixes: B batch, T tokens, R tokens read, D width, H heads, d head size.
"""

from __future__ import annotations

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from vitcompress.stages.rewrites.tokens import ALL, Span, Tokens


class Rotation(nn.Module):
    """Rotary positions of the patch tokens; prefix tokens are left as they are (timm's layout of sines and cosines)."""

    angles: Tensor

    def __init__(self, angles: Tensor, prefix: int, half: bool) -> None:
        super().__init__()
        self.register_buffer("angles", angles.detach().clone())
        self.prefix = prefix
        self.rotate_half = half

    def forward(self, x_BHRd: Tensor, span: Span = ALL) -> Tensor:
        """Return queries or keys of the tokens in ``span``, rotated."""
        patches = span.start + x_BHRd.shape[2] - max(self.prefix, span.start)
        if patches <= 0:
            return x_BHRd
        plain = x_BHRd.shape[2] - patches
        first = max(0, span.start - self.prefix)
        turned = apply_rot_embed_cat(
            x_BHRd[:, :, plain:], self.angles[..., first : first + patches, :], half=self.rotate_half
        )
        return turned if plain == 0 else torch.cat([x_BHRd[:, :, :plain], turned], dim=2)


class LeftMix(nn.Module):
    """CaiT's talking heads as one matrix product from the left, without a bias."""

    def __init__(self, weight_HH: Tensor) -> None:
        super().__init__()
        self.weight_HH = nn.Parameter(weight_HH.detach().clone())

    def forward(self, scores_BHRT: Tensor) -> Tensor:
        """Return mixed scores, same shape."""
        heads, rows, columns = scores_BHRT.shape[1:]
        return (self.weight_HH @ scores_BHRT.reshape(-1, heads, rows * columns)).reshape(-1, heads, rows, columns)


class Attention(nn.Module):
    """``project(norm(mix_weights(softmax(mix_scores(scale q k^T + bias))) v))``, each part where the family has it."""

    bias_1HTT: Tensor | None  # noqa: N815 - shape suffixes

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
        self.mix_scores: LeftMix | None = None
        self.mix_weights: LeftMix | None = None
        self.sum_bias_H11: nn.Parameter | None = None
        """Added to every attention weight of a head after ``mix_weights``, applied to the sum of the values."""
        self.register_buffer("bias_1HTT", None)

    def forward(self, u: Tokens, span: Span = ALL) -> Tokens:
        """Return what the tokens in ``span`` take from all of ``u``."""
        read = u.read(span)
        q = self.query_norm(read.map(self.query).heads(self.heads))
        k = self.key_norm(u.map(self.key).heads(self.heads))
        v = u.map(self.value).heads(self.heads)
        if self.rotation is not None:
            q, k = self.rotation(q, span), self.rotation(k)
        if self.scale != 1.0:
            q = q * self.scale
        scores = q @ k.transpose(-2, -1)
        if self.bias_1HTT is not None:
            scores = scores + span.of(self.bias_1HTT, 2)
        if self.mix_scores is not None:
            scores = self.mix_scores(scores)
        weights = scores.softmax(dim=-1)
        if self.mix_weights is not None:
            weights = self.mix_weights(weights)
        out = weights @ v
        if self.sum_bias_H11 is not None:
            out = out + self.sum_bias_H11 * v.sum(dim=2, keepdim=True)
        return self.finish(out, read)

    def finish(self, out_BHRd: Tensor, read: Tokens) -> Tokens:
        """Join heads, normalise, gate and project them."""
        joined = read.with_heads(out_BHRd).map(self.inner_norm)
        if self.gate is not None:
            joined = joined.map(lambda x: x * self.gate(read.x).sigmoid())  # type: ignore[misc]
        return joined.map(self.project)


class AbsorbedAttention(nn.Module):
    """Attention of a few tokens whose keys and values are never formed; see ``exact.absorb_keys_and_values``."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.query, self.query_norm, self.heads = attention.query, attention.query_norm, attention.heads
        self.scale = attention.scale
        self.inner = attention
        heads, width = attention.heads, attention.key.in_features
        self.key_HdD = nn.Parameter(attention.key.weight.detach().reshape(heads, -1, width).clone())
        value_HdD = attention.value.weight.detach().reshape(heads, -1, width)
        self.value_HDd = nn.Parameter(value_HdD.transpose(1, 2).clone())
        bias = attention.value.bias
        self.value_bias_H1d = None if bias is None else nn.Parameter(bias.detach().reshape(heads, 1, -1).clone())
        del self.inner.query, self.inner.query_norm, self.inner.key, self.inner.value

    def forward(self, u: Tokens, span: Span) -> Tokens:
        """Return what the tokens in ``span`` take from all of ``u``."""
        read = u.read(span)
        q_BHRd = self.query_norm(read.map(self.query).heads(self.heads))
        if self.scale != 1.0:
            q_BHRd = q_BHRd * self.scale
        rows_BHRD = q_BHRd @ self.key_HdD
        heads, asking, width = rows_BHRD.shape[1:]
        u_BTD = u.sequences()
        scores_BXT = rows_BHRD.reshape(-1, heads * asking, width) @ u_BTD.transpose(-2, -1)  # X: heads times R
        scores_BHRT = scores_BXT.reshape(-1, heads, asking, u.count)
        if self.inner.bias_1HTT is not None:
            scores_BHRT = scores_BHRT + span.of(self.inner.bias_1HTT, 2)
        taken_BXD = scores_BHRT.softmax(dim=-1).reshape(-1, heads * asking, u.count) @ u_BTD
        taken_BHRD = taken_BXD.reshape(-1, heads, asking, width)
        out_BHRd = taken_BHRD @ self.value_HDd
        if self.value_bias_H1d is not None:
            out_BHRd = out_BHRd + self.value_bias_H1d
        return self.inner.finish(out_BHRd, read)
