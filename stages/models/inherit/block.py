"""The parts of one transformer block, from a teacher's to a student's narrower one.

Shape suffixes: R rows (tokens of all images), S student's width, T teacher's, O outputs, h heads, d size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitcompress.stages.models.inherit.directions import corrected
from vitcompress.stages.models.inherit.heads import filled, joined_heads, resized, split_heads
from vitcompress.stages.models.inherit.streams import standardised

Tensors = dict[str, Tensor]
"""By their names in the block."""


def as_map(linear: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear module, float64; zeros where it has no bias."""
    weight = linear.weight.detach().cpu().double()
    return weight, torch.zeros(len(weight)).double() if linear.bias is None else linear.bias.detach().cpu().double()


def reading(
    norm: Any, linear: Tensor, bias: Tensor, encode: Tensor, rows: Tensor, own: Tensor
) -> tuple[Tensors, Tensor, Tensor]:
    """Return the student's norm (``weight``, ``bias``), and the map behind it, ``[O, S]`` with its bias ``[O]``.

    What the teacher's norm multiplies and adds goes into the map. The student's norm divides by another deviation, that
    of the part of the width that is kept: its weight makes up for that on average.

    ``linear [O, T]`` and ``bias [O]`` are the teacher's behind its LayerNorm ``norm``. ``encode [S, T]`` leads from its
    width to the student's; ``rows [R, T]`` are its tokens before the norm, ``own [R, S]`` the student's. All are
    float64.
    """
    gain, shift = norm.weight.detach().cpu().double(), norm.bias.detach().cpu().double()
    full, small = standardised(rows, norm.eps), standardised(own, norm.eps)
    scale = float(((full @ encode.T) * small).sum() / small.square().sum())
    back, offset = corrected(encode.T * scale, torch.zeros(len(gain)).double(), small, full)
    read = linear * gain
    found = {"weight": torch.full((len(encode),), scale), "bias": torch.zeros(len(encode))}
    return found, read @ back / scale, bias + linear @ shift + read @ offset


def attention(block: Any, old: Any, encode: Tensor, rows: Tensor, own: Tensor, mixed: Tensor) -> Tensors:
    """Return norm and attention of the student's ``block``, which has random weights, from the teacher's ``old``.

    The heads that move the kept part of the stream most are taken whole; what the others write on average goes into the
    bias.

    ``encode``, ``rows`` and ``own`` are as in ``reading``; ``mixed`` are rows ``[R, h d]`` that the teacher's output
    projection takes in.
    """
    gamma = _layer_scale(old, 1)
    norm, qkv, qkv_bias = reading(old.norm1, *as_map(old.attn.qkv), encode, rows, own)
    out, out_bias = as_map(old.attn.proj)
    out = encode @ (gamma[:, None] * out)
    taken = split_heads(qkv, qkv_bias, out, int(old.attn.num_heads))
    count, size = int(block.attn.num_heads), int(block.attn.qkv.out_features) // 3 // int(block.attn.num_heads)
    each = mixed.reshape(len(mixed), len(taken.out), -1).transpose(0, 1)
    chosen = _strongest(
        torch.stack([_moves(part, outputs) for part, outputs in zip(taken.out, each, strict=True)]), count
    )
    dropped = [index for index in range(len(taken.out)) if index not in chosen.tolist()]
    lost = sum((taken.out[index] @ each[index].mean(0) for index in dropped), torch.zeros(len(encode)).double())
    seed = split_heads(*as_map(block.attn.qkv), torch.zeros(len(encode), count * size).double(), count)
    heads = filled(resized(taken.chosen(chosen), size, seed.chosen(torch.arange(len(chosen)))), count, seed)
    qkv, qkv_bias, out = joined_heads(heads)
    found = {"attn.qkv.weight": qkv, "attn.qkv.bias": qkv_bias, "attn.proj.weight": out}
    found["attn.proj.bias"] = encode @ (gamma * out_bias) + lost
    return found | _named("norm1", norm) | _ones(block, 1)


def mlp(block: Any, old: Any, encode: Tensor, rows: Tensor, own: Tensor, hidden: Tensor) -> Tensors:
    """Return norm and MLP of the student's block; units as heads in ``attention``. ``hidden`` are rows ``[R, M]``."""
    gamma = _layer_scale(old, 2)
    linear, bias = as_map(old.mlp.fc1)
    out, out_bias = as_map(old.mlp.fc2)
    out = encode @ (gamma[:, None] * out)
    count = int(block.mlp.fc1.out_features)
    chosen = _strongest(hidden.var(0, correction=0) * out.square().sum(0), count)
    dropped = torch.ones(len(bias), dtype=torch.bool)
    dropped[chosen] = False
    norm, linear, bias = reading(old.norm2, linear[chosen], bias[chosen], encode, rows, own)
    seed_linear, seed_bias = as_map(block.mlp.fc1)
    taken = len(chosen)  # units beyond the teacher's: as the seed has them, and silent
    return {
        "mlp.fc1.weight": torch.cat([linear, seed_linear[taken:]]),
        "mlp.fc1.bias": torch.cat([bias, seed_bias[taken:]]),
        "mlp.fc2.weight": torch.cat([out[:, chosen], torch.zeros(len(out), count - taken).double()], dim=1),
        "mlp.fc2.bias": encode @ (gamma * out_bias) + out[:, dropped] @ hidden.mean(0)[dropped],
        **_named("norm2", norm),
        **_ones(block, 2),
    }


def _named(name: str, tensors: Tensors) -> Tensors:
    return {f"{name}.{part}": tensor for part, tensor in tensors.items()}


def _moves(out: Tensor, rows: Tensor) -> Tensor:
    """Return variance of what a head ``[S, d]`` writes, given its outputs ``[R, d]``."""
    centred = rows - rows.mean(0)
    return ((out.T @ out) * (centred.T @ centred / len(rows))).sum()


def _strongest(scores: Tensor, count: int) -> Tensor:
    """Return indices of the highest scores, ascending."""
    return scores.topk(min(count, len(scores))).indices.sort().values


def _layer_scale(block: Any, which: int) -> Tensor:
    """Return what a block's attention (1) or MLP (2) is multiplied by before it is added, ``[T]``."""
    scale = getattr(block, f"gamma_{which}", None)
    if scale is None:
        scale = getattr(getattr(block, f"ls{which}"), "gamma", None)
    return torch.ones(block.norm1.normalized_shape).double() if scale is None else scale.detach().cpu().double()


def _ones(block: Any, which: int) -> Tensors:
    """Return the student's own LayerScale, where it has one: the teacher's is in the weights before it."""
    names = dict(block.named_parameters())
    return {name: torch.ones_like(names[name]) for name in (f"gamma_{which}", f"ls{which}.gamma") if name in names}
