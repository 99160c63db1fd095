"""The part of a network before its first block: patch embedding, positions, class token."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.models.inherit.streams import layout_of


def inherited_stem(
    teacher: Any, student: Any, encode: Tensor, given: PreprocessSpec, wanted: PreprocessSpec
) -> dict[str, Tensor]:
    """Return tensors of the student's stem by their names in the timm network.

    Patches of another size and positions on another grid are resampled by timm; another normalisation of the pixels
    goes into the weights.

    ``encode [S, T]`` leads from the teacher's width to the student's; ``given`` and ``wanted`` are their
    preprocessings.
    """
    weight, bias = _patches(teacher, tuple(student.patch_embed.proj.kernel_size), given, wanted)
    bias = encode @ bias
    found = {"patch_embed.proj.weight": torch.einsum("st,tchw->schw", encode, weight)}
    before, after = layout_of(teacher), layout_of(student)
    positions = _cpu(teacher.pos_embed)
    prefix, grid = positions[0, : -before.patches], positions[:, -before.patches :]
    grid = resample_abs_pos_embed(grid, list(after.grid), list(before.grid), num_prefix_tokens=0).double() @ encode.T
    if student.patch_embed.proj.bias is None:
        grid = grid + bias
    else:
        found["patch_embed.proj.bias"] = bias
    own = found["pos_embed"] = _cpu(student.pos_embed).clone()
    own[:, -after.patches :] = grid
    has_prefix = own.shape[1] > after.patches
    for index, name in enumerate(after.prefix):
        if name not in before.prefix:
            continue
        place = before.prefix.index(name)
        position = prefix[place] if len(prefix) else torch.zeros(encode.shape[1]).double()
        key, row = ("reg_token", int(name[3:])) if name.startswith("reg") else (f"{name}_token", 0)
        token = _cpu(getattr(teacher, key))[0, row]
        if has_prefix:
            own[0, index] = encode @ position
        else:
            token = token + position
        found.setdefault(key, _cpu(getattr(student, key)).clone())[0, row] = encode @ token
    return found


def _patches(
    teacher: Any, size: tuple[int, ...], given: PreprocessSpec, wanted: PreprocessSpec
) -> tuple[Tensor, Tensor]:
    """Return the teacher's kernel ``[T, C, p, p]`` and bias for patches of ``size`` and pixels as in ``wanted``."""
    proj = teacher.patch_embed.proj
    weight = resample_patch_embed(proj.weight.detach().cpu(), list(size)).double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if proj.bias is None else _cpu(proj.bias)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (given.mean, given.std))
    other_mean, other_std = (torch.tensor(values, dtype=torch.float64) for values in (wanted.mean, wanted.std))
    bias = bias + torch.einsum("tchw,c->t", weight, (other_mean - mean) / std)
    return weight * (other_std / std).view(1, -1, 1, 1), bias


def _cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
