"""What flows through a network of equal blocks: tokens before, inside and after each block.

Shape suffixes: B images, N tokens, D width, H attention channels, M hidden units of the MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcompress.stages.models.families.registry import family_of

_AT_ONCE = 32
"""Images in one pass."""


@dataclass(frozen=True)
class Layout:
    """Which tokens a block of a network sees, in order."""

    prefix: tuple[str, ...]
    """``cls``, ``dist``, ``reg0``, ...; none in CaiT's first blocks."""
    grid: tuple[int, int]
    """Patches, rows and columns."""

    @property
    def patches(self) -> int:
        """Return their number."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Inside:
    """What one block made of its input, float32."""

    heads: Tensor
    """Input of attention's output projection ``[B, N, H]``."""
    middle: Tensor
    """Tokens between attention and MLP ``[B, N, D]``."""
    hidden: Tensor
    """Input of the MLP's second map ``[B, N, M]``."""
    out: Tensor
    """Tokens after the block ``[B, N, D]``."""


def layout_of(network: Any) -> Layout:
    """Return the layout of a timm network's first blocks."""
    rows, columns = network.patch_embed.grid_size
    return Layout(family_of(network).prefix_tokens(network), (int(rows), int(columns)))


def first_tokens(network: Any, images: Tensor) -> Tensor:
    """Return tokens that enter the first block ``[B, N, D]``, of images ``[B, 3, S, S]``."""
    (found,), _ = inputs_of([network.blocks[0]], network.forward_features, images)
    return found


def inside(block: Any, tokens: Tensor) -> Inside:
    """Run a transformer block on tokens ``[B, N, D]``."""
    (heads, middle, hidden), out = inputs_of([block.attn.proj, block.norm2, block.mlp.fc2], block, tokens)
    return Inside(heads, middle, hidden, torch.cat(out))


@torch.no_grad()
def inputs_of(
    modules: list[nn.Module], forward: Callable[[Tensor], Any], inputs: Tensor
) -> tuple[list[Tensor], list[Any]]:
    """Run ``forward`` on a few of ``inputs`` at a time; return what each module took in, and what forward returned."""
    found: list[list[Tensor]] = [[] for _ in modules]
    handles = [
        module.register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
        for module, kept in zip(modules, found, strict=True)
    ]
    try:
        returned = [forward(part) for part in torch.split(inputs, _AT_ONCE)]
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(parts) for parts in found], returned


def shared_places(given: Layout, wanted: Layout) -> list[int]:
    """Return positions of a student's tokens that its teacher has too: prefix tokens by name, and every patch."""
    start = len(wanted.prefix)
    prefix = [place for place, name in enumerate(wanted.prefix) if name in given.prefix]
    return [*prefix, *range(start, start + wanted.patches)]


def aligned(tokens: Tensor, given: Layout, wanted: Layout) -> Tensor:
    """Return the teacher's tokens at ``shared_places``, ``[B, n, D]``; other grids are interpolated (bilinear)."""
    parts = [tokens[:, given.prefix.index(name)].unsqueeze(1) for name in wanted.prefix if name in given.prefix]
    patches = tokens[:, len(given.prefix) :]
    if given.grid != wanted.grid:
        square = patches.transpose(1, 2).reshape(len(patches), -1, *given.grid)
        patches = F.interpolate(square, size=wanted.grid, mode="bilinear").flatten(2).transpose(1, 2)
    return torch.cat([*parts, patches], dim=1)


def rows_of(tokens: Tensor) -> Tensor:
    """Return tokens ``[..., D]`` as rows ``[R, D]``, float64, on the CPU."""
    return tokens.flatten(0, -2).cpu().double()


def standardised(rows: Tensor, eps: float) -> Tensor:
    """Return LayerNorm of rows ``[R, D]`` without its affine part."""
    return F.layer_norm(rows, rows.shape[-1:], eps=eps)
