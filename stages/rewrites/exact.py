"""Exact rewrites of a network in parts, beyond those that taking it apart makes (``lower``), and why they are exact.

Each changes the network in place.
"""

from __future__ import annotations

import torch
from torch import nn

from vitcompress.stages.rewrites.attend import AbsorbedAttention, Attention
from vitcompress.stages.rewrites.parts import ClassAttentionReadout, Network
from vitcompress.stages.rewrites.tokens import ALL

MOST_QUERIES = 2
"""A class and a distillation token; with many more queries, forming keys and values once is the cheaper way."""


def narrow_last_block(network: Network) -> str:
    """Reduce the last block to those tokens that the classifier reads; return which, empty if it reads all.

    Within a block tokens meet in attention alone, and there as keys and values: token t's output is a function of its
    own query and input and of all keys and values. What nothing reads of the last block's output is therefore not
    computed: with the class token read, its query, projection and MLP are those of one token; with a lift's patch
    tokens read, the class token's are left out.
    """
    span = network.readout.span
    if span.everything:
        return ""
    network.blocks[-1].span = span
    network.readout.span = ALL
    return "patch tokens" if span.stop is None else "class token" if span.stop == 1 else f"first {span.stop} tokens"


def absorb_keys_and_values(network: Network) -> bool:
    """Form no keys and values where a block answers for the class token alone; return whether one does.

    For a query q of one head with maps Wk, Wv ``[d, D]`` over tokens u_n, associativity gives

        q . (Wk u_n)       = (Wk^T q) . u_n
        sum_n a_n (Wv u_n) = Wv (sum_n a_n u_n)

    ``2 T D^2`` multiplications for the keys and values of T tokens become ``2 (T H D + D^2)`` for one query: at
    T = 197, D = 384, H = 6, 58 million become 1.2 million. A key's bias adds the same to all scores of a query, which
    softmax ignores; a value's bias is added afterwards, because the weights sum to 1. Neither holds of keys that are
    normalised or rotated after their map, nor does the second line of mixed weights (talking heads): those blocks stay
    as they are.
    """
    readout = network.readout
    blocks = [*network.blocks, *(readout.blocks if isinstance(readout, ClassAttentionReadout) else [])]
    narrow = [block for block in blocks if block.span.stop in range(1, MOST_QUERIES + 1)]
    absorbable = [block for block in narrow if _absorbable(block.attention)]
    for block in absorbable:
        block.attention = AbsorbedAttention(block.attention)
    return bool(absorbable)


def _absorbable(attention: Attention) -> bool:
    changed = (attention.rotation, attention.mix_scores, attention.mix_weights)
    return all(part is None for part in changed) and isinstance(attention.key_norm, nn.Identity)


@torch.no_grad()
def add_bias_to_positions(network: Network) -> bool:
    """Add the patch embedding's bias to the positions of the patches; return whether there are positions.

    timm puts the prefix tokens c before the patches and adds the positions e to all: ``[c; W x + b] + e``. Row by row
    that is ``[c + e_0; W x + (b + e_1..)]``: the first row does not depend on the image, and each patch has one
    constant of its own. One addition and one concatenation are left.
    """
    embedding = network.embedding
    projection = embedding.convolution
    if embedding.position_1PD is None:
        return False
    if isinstance(embedding.patch_norm, nn.Identity) and projection.bias is not None:
        embedding.position_1PD.add_(projection.bias)
        projection.bias = None
    return True
