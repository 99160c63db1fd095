"""The student strategies as networks: lift (projector kept or folded) and a widened last block.

Shape suffixes: B batch, N patch tokens, S student width Ds, T teacher width Dt, K classes, H W patch grid.
Sources: [EM] From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from stages.models.geometry import check_strategy, shape_of

LAYER_NORM_EPS = 1e-6
"""As in timm's ViTs."""


class WideBlock(nn.Module):
    """The last transformer block at the teacher's width, entered through a linear map and a LayerNorm [EM]."""

    def __init__(self, width: int, wide_width: int, block: nn.Module) -> None:
        super().__init__()
        self.enter = nn.Linear(width, wide_width, bias=False)
        self.enter_norm = nn.LayerNorm(wide_width, eps=LAYER_NORM_EPS)
        self.block = block
        nn.init.trunc_normal_(self.enter.weight, std=0.02)

    def forward(self, x_BNS: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens ``[B, N, Ds]`` to ``[B, N, Dt]``; further arguments (EVA's rotary angles) go to the block."""
        out: Tensor = self.block(self.enter_norm(self.enter(x_BNS)), *args, **kwargs)
        return out


def widen_last(model: nn.Module, arch: str, args: dict[str, Any], num_classes: int, wide_width: int) -> nn.Module:
    """``model`` with its last block, final norm and classifier at ``wide_width``; head size stays.

    A second timm model of the same family, one block deep and ``wide_width`` wide, supplies them.

    Raises:
        UsageError: the model is hierarchical, or its head size does not divide ``wide_width``.
    """
    shape = shape_of(model, arch)
    check_strategy("widelast", arch, shape, wide_width)
    head_dim = shape.width // (shape.heads or 1)
    wide_args = {**args, "embed_dim": wide_width, "depth": 1, "num_heads": wide_width // head_dim}
    wide: Any = timm.create_model(arch, num_classes=num_classes, **wide_args)
    narrow: Any = model
    narrow.blocks[-1] = WideBlock(shape.width, wide_width, wide.blocks[0])
    for name in ("norm", "fc_norm", "head", "head_dist", "attn_pool"):
        if hasattr(narrow, name):
            setattr(narrow, name, getattr(wide, name))
    if hasattr(narrow, "blocks_token_only"):  # CaiT's class attention reads the widened tokens
        narrow.blocks_token_only = wide.blocks_token_only
        narrow.cls_token = wide.cls_token
    narrow.embed_dim = narrow.num_features = narrow.head_hidden_size = wide_width
    return model


class TokenBase(nn.Module):
    """A timm ViT cut to what a lift reads: the patch tokens of its last block, before any final norm.

    What takes no part is removed (final norm, classifier, CaiT's class-attention blocks), so that every parameter
    that remains gets a gradient and DDP needs no ``find_unused_parameters``.
    """

    def __init__(self, model: nn.Module, arch: str) -> None:
        super().__init__()
        shape = shape_of(model, arch)
        check_strategy("lift", arch, shape, None)
        base: Any = model
        for name in ("norm", "fc_norm", "head", "head_dist"):
            if hasattr(base, name):
                setattr(base, name, nn.Identity())
        if getattr(base, "attn_pool", None) is not None:
            base.attn_pool = None
        if hasattr(base, "blocks_token_only"):
            base.blocks_token_only = nn.ModuleList()
            del base.cls_token
        self.vit = base
        self.width = shape.width
        self.depth = shape.depth

    def forward(self, x: Tensor, indices: tuple[int, ...] | None = None) -> list[Tensor]:
        """Taps ``[B, Ds, H, W]`` of ``indices`` (default: the last block alone), in ascending order."""
        indices = (self.depth - 1,) if indices is None else indices
        taps: list[Tensor] = self.vit.forward_intermediates(
            x, indices=list(indices), norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return taps


class LiftStudent(nn.Module):
    """[EM] lift: last patch tokens -> P (Linear Ds->Dt, no bias, then LayerNorm) = f; logits = head(mean of f)."""

    def __init__(self, model: nn.Module, arch: str, lift_width: int, num_classes: int) -> None:
        super().__init__()
        self.base = TokenBase(model, arch)
        self.projector = nn.Linear(self.base.width, lift_width, bias=False)
        self.norm = nn.LayerNorm(lift_width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(lift_width, num_classes)
        nn.init.trunc_normal_(self.projector.weight, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward_with_taps(self, x: Tensor, indices: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Logits ``[B, K]``; taps of ascending ``indices``: the base's ``[B, Ds, H, W]``, the last one lifted to Dt."""
        last = self.base.depth - 1
        taps = self.base(x, tuple(sorted({*indices, last})))
        z_BSHW = taps[-1]
        f_BHWT = self.norm(self.projector(z_BSHW.permute(0, 2, 3, 1)))
        logits: Tensor = self.head(f_BHWT.mean(dim=(1, 2)))
        lifted = f_BHWT.permute(0, 3, 1, 2)
        return logits, [*taps[:-1], lifted] if last in indices else taps[:-1]

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[B, 3, S, S]`` to logits ``[B, K]``."""
        return self.forward_with_taps(x, ())[0]


class FoldedLift(nn.Module):
    """A lift with its projector, LayerNorm and head absorbed exactly (see ``stages.fold.algebra``).

    ``s_t = sqrt(|R z_t|^2 + eps)``; ``logits = A mean_t(z_t / s_t) + b``, with R ``[rank, Ds]`` and A ``[K, Ds]``.
    """

    def __init__(self, base: TokenBase, rank: int, num_classes: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__()
        self.base = base
        self.eps = eps
        self.root = nn.Linear(self.base.width, rank, bias=False)
        self.head = nn.Linear(self.base.width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[B, 3, S, S]`` to logits ``[B, K]``."""
        (z_BSHW,) = self.base(x)
        z_BNS = z_BSHW.flatten(2).transpose(1, 2)
        rooted = self.root(z_BNS)
        inverse_scale_BN1 = torch.rsqrt((rooted * rooted).sum(dim=-1, keepdim=True) + self.eps)
        logits: Tensor = self.head((z_BNS * inverse_scale_BN1).mean(dim=1))
        return logits
