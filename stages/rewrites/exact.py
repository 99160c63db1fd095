"""The exact rewrites of a network in parts: what they change, and why logits stay the same.

Each returns a changed copy, or the network itself and the reason why there was nothing to do.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.swin_transformer import WindowAttention
from torch import nn

from vitcompress.stages.rewrites.attend import AbsorbedAttention, Attention, LeftMix, PermutedMix
from vitcompress.stages.rewrites.parts import Block, ClassAttentionReadout, Network
from vitcompress.stages.rewrites.tokens import ALL

MOST_QUERIES = 2
"""A class and a distillation token; with many more queries, forming keys and values once is the cheaper way."""


@dataclass(frozen=True)
class Rewritten:
    """A network after one rewrite; the one before is untouched."""

    module: nn.Module
    applied: bool
    """False: ``module`` is the network as it was given."""
    words: str
    """What was done, or what there was not to do, for the report."""


@torch.no_grad()
def fold_layer_scale(network: Network) -> Rewritten:
    """Fold LayerScale of CaiT, DeiT-III and BEiT into the projection before it.

    A block adds ``g * f(x)`` with one factor a channel, and f ends in a linear layer (attention's projection, the MLP's
    second layer) with nothing but inactive dropout after it: ``g * (W h + b) = (diag(g) W) h + g * b``.
    """
    if all(block.scale1 is None and block.scale2 is None for block in network.every_block()):
        return Rewritten(network, False, "LayerScale: the network has none")
    network = deepcopy(network)
    for block in network.every_block():
        mlp: Any = block.mlp
        project = getattr(block.attention, "inner", block.attention).project
        for scale_D, linear in ((block.scale1, project), (block.scale2, mlp.fc2)):
            if scale_D is not None:
                linear.weight.mul_(scale_D[:, None])
                if linear.bias is not None:
                    linear.bias.mul_(scale_D)
        block.scale1 = block.scale2 = None
    return Rewritten(network, True, "LayerScale in the projections")


@torch.no_grad()
def simplify_attention(network: Network) -> Rewritten:
    """Fold scale, biases and talking heads in every attention.

    With q = Wq u + bq and so on, a query's scores are ``s (q . k_n)`` over the tokens n, and softmax ignores what is
    the same for all n:

    - ``s q = (s Wq) u + s bq``: the scale goes into the query's weights, or into the affine map of its norm.
    - ``q . (Wk u_n + bk) = q . Wk u_n + q . bk``, whose last term is the same for all n: the key's bias goes. Not so
      where keys are normalised or rotated, nor of anything behind talking heads: these mix the heads of one n, so they
      too turn what is the same for all n into what is the same for all n.
    - Weights that sum to 1 take ``sum_n a_n (Wv u_n + bv) = sum_n a_n Wv u_n + bv``: the value's bias goes through the
      projection into its bias, ``b + W bv``. Not so behind talking heads, a norm or a gate.
    - Talking heads before softmax, ``W A + c``: c is the same for all n and goes. After it,
      ``(W A + c 1) V = (W A) V + c (sum_n v_n)``: one sum for a head instead of an addition for each weight. ``W A``
      over heads is one product from the left, with no permutation.
    """
    network = deepcopy(network)
    for block in network.every_block():
        if isinstance(block.attention, Attention):
            _simplify(block.attention)
    return Rewritten(network, True, "attention's scale and biases in its weights")


def _simplify(attention: Attention) -> None:
    norm = attention.query_norm
    scaled = attention.query if isinstance(norm, nn.Identity) else norm
    if scaled is attention.query or (isinstance(norm, nn.LayerNorm) and norm.weight is not None):
        for parameter in scaled.parameters():
            parameter.mul_(attention.scale)
        attention.scale = 1.0
    if attention.rotation is None and isinstance(attention.key_norm, nn.Identity):
        attention.key.register_parameter("bias", None)
    plain = attention.gate is None and attention.mix_weights is None and isinstance(attention.inner_norm, nn.Identity)
    if plain and attention.value.bias is not None and attention.project.bias is not None:
        attention.project.bias.add_(attention.project.weight @ attention.value.bias)
        attention.value.register_parameter("bias", None)
    if isinstance(attention.mix_scores, PermutedMix):
        attention.mix_scores = LeftMix(attention.mix_scores.linear.weight)
    if isinstance(attention.mix_weights, PermutedMix):
        linear = attention.mix_weights.linear
        attention.mix_weights = LeftMix(linear.weight)
        attention.sum_bias_H11 = nn.Parameter(linear.bias.detach()[:, None, None].clone())


def narrow_last_block(network: Network) -> Rewritten:
    """Reduce the last block to those tokens that the classifier reads (DESIGN 3.6).

    Within a block tokens meet in attention alone, and there as keys and values: token t's output is a function of its
    own query and input and of all keys and values. What nothing reads of the last block's output is therefore not
    computed: with the class token read, its query, projection and MLP are those of one token; with a lift's patch
    tokens read, the class token's are left out.
    """
    span = network.readout.span
    if isinstance(network.readout, ClassAttentionReadout):
        return Rewritten(network, False, "last block: its class attention has blocks of its own")
    if span.everything:
        return Rewritten(network, False, "last block: the classifier reads all of its tokens")
    network = deepcopy(network)
    network.blocks[-1].span = span
    network.readout.span = ALL
    which = "patch tokens" if span.stop is None else "class token" if span.stop == 1 else f"first {span.stop} tokens"
    return Rewritten(network, True, f"last block for the {which} alone")


def absorb_keys_and_values(network: Network) -> Rewritten:
    """Form no keys and values where a block answers for the class token alone.

    For a query q of one head with maps Wk, Wv ``[d, D]`` over tokens u_n, associativity gives

        q . (Wk u_n)       = (Wk^T q) . u_n
        sum_n a_n (Wv u_n) = Wv (sum_n a_n u_n)

    ``2 T D^2`` multiplications for the keys and values of T tokens become ``2 (T H D + D^2)`` for one query: at
    T = 197, D = 384, H = 6, 58 million become 1.2 million. A key's bias adds the same to all scores of a query, which
    softmax ignores; a value's bias is added afterwards, because the weights sum to 1. Neither holds of keys that are
    normalised or rotated after their map, nor does the second line of mixed weights (talking heads): those blocks stay
    as they are.
    """
    narrow = [block for block in network.every_block() if block.span.stop in range(1, MOST_QUERIES + 1)]
    if not narrow:
        return Rewritten(network, False, "keys and values: no block answers for the class token alone")
    if not any(_absorbable(block) for block in narrow):
        return Rewritten(network, False, "keys and values: they are rotated, normalised or mixed after their maps")
    network = deepcopy(network)
    for block in network.every_block():
        if block.span.stop in range(1, MOST_QUERIES + 1) and _absorbable(block):
            block.attention = AbsorbedAttention(block.attention)
    return Rewritten(network, True, "no keys and values where the class token alone asks")


def _absorbable(block: Block) -> bool:
    attention = block.attention
    changes = ("rotation", "mix_scores", "mix_weights")
    return (
        isinstance(attention, Attention)
        and all(getattr(attention, name) is None for name in changes)
        and isinstance(attention.key_norm, nn.Identity)
    )


@torch.no_grad()
def precompute_constants(network: Network) -> Rewritten:
    """Make class token, positions and the patch embedding's bias constants.

    timm puts the prefix tokens c before the patches and adds the positions e to all: ``[c; W x + b] + e``. Row by row
    that is ``[c + e_0; W x + (b + e_1..)]``: the first row does not depend on the image, and each patch has one
    constant of its own. One addition and one concatenation are left.
    """
    network, given = deepcopy(network), network
    embedding, projection = network.embedding, network.embedding.patches.linear_map
    prefix, position = embedding.prefix_1pD, embedding.position_1TD
    if position is None:
        return Rewritten(given, False, "constants: the network has no table of positions")
    count = 0 if prefix is None else prefix.shape[1]
    patches = position[:, count:]
    if isinstance(embedding.patch_norm, nn.Identity) and projection.bias is not None:
        patches = patches + projection.bias
        projection.bias = None
    embedding.prefix_1pD = None if prefix is None else nn.Parameter(prefix + position[:, :count])
    embedding.position_1TD = nn.Parameter(patches.detach().clone())
    embedding.constant_prefix = True
    return Rewritten(network, True, "positions and class token as constants")


def keep_tokens_first(network: Network) -> Rewritten:
    """Keep tokens as rows of one matrix, token by token instead of image by image.

    Nothing but attention and the readout looks at more than one token, and those address tokens by name
    (``stages.rewrites.tokens``): permuting the rows of a matrix permutes those of every product with it. What it buys
    is in docs/performance-export.md.
    """
    network = deepcopy(network)
    network.embedding.tokens_first = True
    return Rewritten(network, True, "tokens before images in memory")


@torch.no_grad()
def fold_window_scale(module: nn.Module) -> Rewritten:
    """Fold the scale of Swin's window attention into the weights of its queries, as ``simplify_attention`` does."""
    module = deepcopy(module)
    parts: list[Any] = [part for part in module.modules() if type(part) is WindowAttention]
    for part in parts:
        for parameter in part.qkv.parameters():
            parameter[: part.qkv.out_features // 3].mul_(part.scale)
        part.scale = 1.0
    return Rewritten(module, True, "attention's scale in its weights")
