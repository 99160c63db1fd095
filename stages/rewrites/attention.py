"""Attention with less to do: its scale, its biases and its talking heads.

With q = Wq u + bq and so on, a query's scores are ``s (q . k_n)`` over the tokens n, and softmax ignores what is the
same for all n:

- ``s q = (s Wq) u + s bq``: the scale goes into the query's weights, or into the affine map of its norm.
- ``q . (Wk u_n + bk) = q . Wk u_n + q . bk``, whose last term is the same for all n: the key's bias goes. Not so where
  keys are normalised or rotated, nor of anything behind talking heads: these mix the heads of one n, so they too turn
  what is the same for all n into what is the same for all n.
- Weights that sum to 1 take ``sum_n a_n (Wv u_n + bv) = sum_n a_n Wv u_n + bv``: the value's bias goes through the
  projection into its bias, ``b + W bv``. Not so behind talking heads, a norm or a gate.
- Talking heads before softmax, ``W A + c``: c is the same for all n and goes. After it,
  ``(W A + c 1) V = (W A) V + c (sum_n v_n)``: one sum for a head instead of an addition for each weight. ``W A`` over
  heads is one product from the left, with no permutation.
"""

from __future__ import annotations

import torch
from torch import nn

from vitcompress.stages.rewrites.attend import Attention, LeftMix, PermutedMix
from vitcompress.stages.rewrites.parts import Network
from vitcompress.stages.rewrites.rewritten import Rewritten, copy_of


def simplify_attention(network: Network) -> Rewritten:
    """Scale, biases and talking heads folded in every attention."""
    network = copy_of(network)
    with torch.no_grad():
        for block in network.every_block():
            if isinstance(block.attention, Attention):
                _simplify(block.attention)
    return Rewritten(network, True, "attention's scale and biases in its weights")


def _simplify(attention: Attention) -> None:
    _fold_scale(attention)
    if attention.rotation is None and isinstance(attention.key_norm, nn.Identity):
        _drop_bias(attention.key)
    plain = attention.gate is None and attention.mix_weights is None and isinstance(attention.inner_norm, nn.Identity)
    if plain and attention.value.bias is not None and attention.project.bias is not None:
        attention.project.bias.add_(attention.project.weight @ attention.value.bias)
        _drop_bias(attention.value)
    if isinstance(attention.mix_scores, PermutedMix):
        attention.mix_scores = LeftMix(attention.mix_scores.linear.weight)
    if isinstance(attention.mix_weights, PermutedMix):
        linear = attention.mix_weights.linear
        attention.mix_weights = LeftMix(linear.weight)
        attention.sum_bias_H11 = nn.Parameter(linear.bias.detach()[:, None, None].clone())


def _drop_bias(linear: nn.Linear) -> None:
    linear.register_parameter("bias", None)


def _fold_scale(attention: Attention) -> None:
    norm = attention.query_norm
    if isinstance(norm, nn.Identity):
        target: nn.Module = attention.query
    elif isinstance(norm, nn.LayerNorm) and norm.weight is not None:
        target = norm
    else:
        return
    for parameter in target.parameters():
        parameter.mul_(attention.scale)
    attention.scale = 1.0
