"""Keys and values that are never formed, where a block answers for the class token alone.

For a query q of one head with maps Wk, Wv ``[d, D]`` over tokens u_n, associativity gives

    q . (Wk u_n)       = (Wk^T q) . u_n
    sum_n a_n (Wv u_n) = Wv (sum_n a_n u_n)

``2 T D^2`` multiplications for the keys and values of T tokens become ``2 (T H D + D^2)`` for one query: at T = 197,
D = 384, H = 6, 58 million become 1.2 million. A key's bias adds the same to all scores of a query, which softmax
ignores; a value's bias is added afterwards, because the weights sum to 1. Neither holds of keys that are normalised or
rotated after their map, nor does the second line of mixed weights (talking heads): those blocks stay as they are.
"""

from __future__ import annotations

from torch import nn

from vitcompress.stages.rewrites.attend import AbsorbedAttention, Attention
from vitcompress.stages.rewrites.parts import Block, Network
from vitcompress.stages.rewrites.rewritten import Rewritten, copy_of

MOST_QUERIES = 2
"""A class and a distillation token; with many more queries, forming keys and values once is the cheaper way."""


def absorb_keys_and_values(network: Network) -> Rewritten:
    """Attention of class tokens alone without keys and values."""
    narrow = [block for block in network.every_block() if block.span.stop in range(1, MOST_QUERIES + 1)]
    if not narrow:
        return Rewritten(network, False, "keys and values: no block answers for the class token alone")
    if not any(_absorbable(block) for block in narrow):
        return Rewritten(network, False, "keys and values: they are rotated, normalised or mixed after their maps")
    network = copy_of(network)
    for block in network.every_block():
        if block.span.stop in range(1, MOST_QUERIES + 1) and _absorbable(block):
            block.attention = AbsorbedAttention(block.attention)
    return Rewritten(network, True, "no keys and values where the class token alone asks")


def _absorbable(block: Block) -> bool:
    attention = block.attention
    return (
        isinstance(attention, Attention)
        and attention.rotation is None
        and attention.mix_scores is None
        and attention.mix_weights is None
        and isinstance(attention.key_norm, nn.Identity)
    )
