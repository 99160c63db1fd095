"""Talking-heads attention (Shazeer et al. 2020, arXiv 2003.02436; CaiT's) rewritten exactly, for networks only run.

Letters: B batch, N tokens, H heads (h before mixing, g after), C width, d = C / H.

timm mixes the heads by a Linear over the last axis, so the scores ``[B, H, N, N]`` are permuted, copied and permuted
back, twice a block: a third of CaiT-S24's forward pass goes there, and most of the memory that it takes and gives back.
With ``L`` and ``W`` the weights of ``proj_l`` and ``proj_w``, ``l`` and ``w`` their biases, ``S_h = q_h k_h^T`` and
``s = d^-1/2``, head g of timm's block is

    sum_h W_gh softmax(sum_h' L_hh' s S_h' + l_h) v_g + w_g (sum over tokens of v_g)

Mixing is a product from the left, ``(s L) S`` with S as ``[H, N N]``, no axis moved. A softmax does not change when its
row is shifted by a constant, so ``l`` drops out; ``w_g`` multiplies a matrix of ones, and ones times ``v_g`` is the sum
over tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.cait import LayerScaleBlock, TalkingHeadAttn
from torch import Tensor, nn


class FrozenTalkingHeads(nn.Module):
    """A timm ``TalkingHeadAttn`` in evaluation mode, computed as above; it shares the large weights."""

    scores_gh: Tensor
    shares_gh: Tensor
    shift_g11: Tensor

    def __init__(self, attention: TalkingHeadAttn) -> None:
        super().__init__()
        self.heads = int(attention.num_heads)
        self.qkv, self.proj = attention.qkv, attention.proj
        self.register_buffer("scores_gh", attention.proj_l.weight.detach() * attention.scale)
        self.register_buffer("shares_gh", attention.proj_w.weight.detach().clone())
        self.register_buffer("shift_g11", attention.proj_w.bias.detach().clone().view(-1, 1, 1))

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Map tokens ``[B, N, C]`` to ``[B, N, C]``."""
        B, N, C = x_BNC.shape
        q, k, v = self.qkv(x_BNC).view(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self._mix(self.scores_gh, q @ k.transpose(-2, -1))
        shares = self._mix(self.shares_gh, scores.softmax(dim=-1))
        mixed = shares @ v + self.shift_g11 * v.sum(dim=2, keepdim=True)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(B, N, C))
        return out

    def _mix(self, weight_gh: Tensor, heads_BHNN: Tensor) -> Tensor:
        """Return each head as a weighted sum of all: one product with each image's ``[H, N N]``."""
        return torch.bmm(weight_gh.expand(len(heads_BHNN), -1, -1), heads_BHNN.flatten(2)).view_as(heads_BHNN)


class FrozenLayerScaleBlock(nn.Module):
    """CaiT's ``LayerScaleBlock`` in evaluation mode: scaling and adding in one pass over the tokens each."""

    def __init__(self, block: LayerScaleBlock) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.gamma_1, self.gamma_2 = block.gamma_1, block.gamma_2

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Map tokens ``[B, N, C]`` to ``[B, N, C]``."""
        x_BNC = torch.addcmul(x_BNC, self.gamma_1, self.attn(self.norm1(x_BNC)))
        return torch.addcmul(x_BNC, self.gamma_2, self.mlp(self.norm2(x_BNC)))


def freeze_talking_heads(network: nn.Module) -> int:
    """Rewrite every talking-heads block of ``network`` in place; return how many there are.

    The outputs are those of evaluation mode up to rounding. Names of parameters and weights of the rewritten blocks
    change, so this is for networks that nothing saves or trains.
    """
    _replace(network, LayerScaleBlock, FrozenLayerScaleBlock)
    return _replace(network, TalkingHeadAttn, FrozenTalkingHeads)


def _replace(network: nn.Module, old: type[nn.Module], new: Callable[[Any], nn.Module]) -> int:
    found = [(name, module) for name, module in network.named_modules() if type(module) is old]
    for name, module in found:
        network.set_submodule(name, new(module).train(module.training))
    return len(found)
