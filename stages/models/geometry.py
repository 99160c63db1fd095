"""The shape of an architecture, and its reduced form for the embedded digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from core.errors import UsageError

REDUCED_SIZE = 32
"""Side of the embedded digits, pixels."""
_REDUCTION = 6
_MIN_HEAD_DIM = 8


@dataclass(frozen=True)
class Shape:
    """What the strategies need to know about a network."""

    width: int
    """Token width of the last tap."""
    depth: int
    """Number of taps: blocks of an isotropic ViT, stages of a hierarchical one."""
    heads: int | None
    """Attention heads a block; None for hierarchical models."""

    @property
    def isotropic(self) -> bool:
        """Whether all blocks have the same width, as lift and widelast need."""
        return self.heads is not None


def shape_of(model: nn.Module, name: str) -> Shape:
    """The shape of a timm ViT (ViT, DeiT, CaiT, BEiT, EVA and their like) or Swin.

    Raises:
        UsageError: the model has neither blocks nor stages that can be tapped.
    """
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks) and hasattr(blocks[0], "attn"):
        attention: Any = blocks[0].attn
        return Shape(width=int(model.embed_dim), depth=len(blocks), heads=int(attention.num_heads))  # type: ignore[arg-type]
    stages = getattr(model, "layers", None)
    if isinstance(stages, (nn.Sequential, nn.ModuleList)) and hasattr(model, "forward_intermediates"):
        return Shape(width=int(model.num_features), depth=len(stages), heads=None)  # type: ignore[arg-type]
    raise UsageError(
        f"model '{name}' has no transformer blocks or stages to tap; "
        "use a ViT, DeiT, CaiT, BEiT, EVA or Swin model of timm (see `compress models`)."
    )


def check_strategy(strategy: str, arch: str, shape: Shape, wide_width: int | None) -> None:
    """Whether a student of this shape can take the strategy.

    Args:
        strategy: ``plain``, ``lift`` or ``widelast``.
        arch: the student's name, for the message.
        shape: the student's.
        wide_width: the teacher's width, which a widened block gets at the student's head size.

    Raises:
        UsageError: it cannot; the message says why.
    """
    if strategy == "plain":
        return
    if shape.heads is None:
        raise UsageError(
            f"strategy '{strategy}' needs a student of equal blocks (ViT, DeiT, CaiT, BEiT, EVA), and {arch} has "
            "stages of different width; use --strategy plain."
        )
    head_dim = shape.width // shape.heads
    if strategy == "widelast" and wide_width is not None and wide_width % head_dim:
        raise UsageError(
            f"strategy 'widelast' keeps the head size of {arch}, {head_dim}, but the teacher's width {wide_width} "
            "is no multiple of it; choose another student, or set student.args.num_heads so that it is."
        )


def meta_model(arch: str, args: dict[str, Any], num_classes: int = 1000) -> nn.Module:
    """The network without its weights: shapes and parameter counts at no cost in memory or time.

    Raises:
        UsageError: timm refuses the arguments.
    """
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(arch, num_classes=num_classes, **args)
    except (TypeError, ValueError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise UsageError(f"model '{arch}' cannot be built with {args}: {error}") from error
    return model


def shape_by_name(arch: str, args: dict[str, Any]) -> Shape:
    """The shape of a named architecture with these arguments."""
    return shape_of(meta_model(arch, args), arch)


def reduced_args(arch: str) -> dict[str, Any]:
    """The reduced geometry: 32-pixel input, 4 x 4 tokens, a sixth of the width and depth, as many heads as divide it.

    The code path stays timm's own; only numbers shrink. A sixth of CaiT-S24 is 4 blocks of width 64, a sixth of
    DeiT-Tiny 2 blocks of width 32, so that the ratio of widths, which the strategies are about, is the real one.
    LayerScale starts at 0.1, what CaiT prescribes for 18 blocks or fewer (Touvron et al. 2021, section 4).
    """
    full = meta_model(arch, {})
    shape = shape_of(full, arch)
    if not shape.isotropic:
        stages: Any = full.layers
        depths = tuple(max(1, len(stage.blocks) // 2) for stage in stages)
        heads = tuple(int(stage.blocks[0].attn.num_heads) for stage in stages)
        head_dim = int(full.embed_dim) // heads[0]  # type: ignore[arg-type]
        width = heads[0] * max(_MIN_HEAD_DIM, head_dim // _REDUCTION)
        return {
            "img_size": REDUCED_SIZE,
            "patch_size": 2,
            "window_size": 4,
            "embed_dim": width,
            "depths": depths,
            "num_heads": heads,
        }
    width = shape.width // _REDUCTION
    heads_kept: int = shape.heads or 1
    while width % heads_kept or width // heads_kept < _MIN_HEAD_DIM:
        heads_kept -= 1
    args: dict[str, Any] = {
        "img_size": REDUCED_SIZE,
        "patch_size": 8,
        "embed_dim": width,
        "depth": max(2, shape.depth // _REDUCTION),
        "num_heads": heads_kept,
    }
    if any("gamma" in name for name, _ in full.named_parameters()):
        args["init_values"] = 0.1
    return args
