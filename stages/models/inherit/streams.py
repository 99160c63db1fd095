"""What flows through a network of equal blocks: tokens before, inside and after each block.

Shape suffixes: B images, N tokens, D width, H attention channels, M hidden units of the MLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import WideBlock

_AT_ONCE = 32
"""Images in one pass."""


@dataclass(frozen=True)
class Layout:
    """Which tokens a block of a network sees, in order."""

    prefix: tuple[str, ...]
    """``cls``, ``dist``, ``reg0``, ...; none in CaiT's first blocks."""
    grid: tuple[int, int]
    """Patches, rows and columns."""


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


def inner(block: nn.Module) -> Any:
    """Return the transformer block itself, without what leads into a widened one."""
    return block.block if isinstance(block, WideBlock) else block


def layout_of(network: Any) -> Layout:
    """Return the layout of a timm network's first blocks."""
    rows, columns = network.patch_embed.grid_size
    return Layout(family_of(network).prefix_tokens(network), (int(rows), int(columns)))


class _Reached(Exception):  # noqa: N818 - a way out of a forward pass, no error
    pass


@torch.no_grad()
def first_tokens(network: Any, images: Tensor) -> Tensor:
    """Return tokens that enter the first block ``[B, N, D]``, of images ``[B, 3, S, S]``."""
    found: list[Tensor] = []

    def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].detach())
        raise _Reached

    handle = network.blocks[0].register_forward_pre_hook(catch)
    try:
        for part in torch.split(images, _AT_ONCE):
            try:
                network.forward_features(part)
            except _Reached:
                continue
    finally:
        handle.remove()
    return torch.cat(found)


@torch.no_grad()
def inside(block: nn.Module, tokens: Tensor) -> Inside:
    """Run the transformer block (of a widened one, without its entrance) on tokens ``[B, N, D]``."""
    parts: list[Inside] = []
    core = inner(block)
    with _inputs_of({"heads": core.attn.proj, "middle": core.norm2, "hidden": core.mlp.fc2}) as caught:
        for part in torch.split(tokens, _AT_ONCE):
            out = core(part)
            parts.append(Inside(caught["heads"], caught["middle"], caught["hidden"], out))
    return Inside(*(torch.cat([getattr(part, name) for part in parts]) for name in Inside.__dataclass_fields__))


@torch.no_grad()
def head_inputs(model: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    """Return what a classifier reads, rows ``[B, D]`` float64, of images ``[B, 3, S, S]``."""
    found: list[Tensor] = []
    with _inputs_of({"head": head}) as caught:
        for part in torch.split(images, _AT_ONCE):
            model(part)
            found.append(caught["head"])
    return rows_of(torch.cat(found))


@torch.no_grad()
def answers_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return logits, rows ``[B, K]`` float64, of images ``[B, 3, S, S]``."""
    return rows_of(torch.cat([model(part) for part in torch.split(images, _AT_ONCE)]))


@contextmanager
def _inputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    caught: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            caught[name] = inputs[0]

        return hook

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def shared_places(given: Layout, wanted: Layout) -> list[int]:
    """Return positions of a student's tokens that its teacher has too: prefix tokens by name, and every patch."""
    start, patches = len(wanted.prefix), wanted.grid[0] * wanted.grid[1]
    prefix = [place for place, name in enumerate(wanted.prefix) if name in given.prefix]
    return [*prefix, *range(start, start + patches)]


def aligned(tokens: Tensor, given: Layout, wanted: Layout) -> Tensor:
    """Return tokens of a teacher that stand at ``shared_places`` of its student's, ``[B, n, D]``.

    Patches of another grid are interpolated (bilinear).
    """
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
