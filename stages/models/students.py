"""The student strategies as networks: lift (projector kept or folded) and widened last blocks.

Shape suffixes: B batch, N patch tokens, S student width Ds, T teacher width Dt, K classes, H W patch grid.
Sources: [EM] From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572.
"""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.records import WideHeads
from vitcompress.stages.models.geometry import check_strategy, meta_model, shape_of, wide_shapes

LAYER_NORM_EPS = 1e-6
"""As in timm's ViTs."""


class WideBlock(nn.Module):
    """A transformer block at a larger width, entered through a linear map and a LayerNorm [EM].

    Args:
        width: of the tokens that come in.
        wide_width: of the tokens that go out.
        block: the wide transformer block.
        rope: rotary positions of the block's own, where those of the network are for another head size or number.
        grid: patches ``(H, W)`` they are for.
    """

    def __init__(
        self,
        width: int,
        wide_width: int,
        block: nn.Module,
        rope: nn.Module | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(width, wide_width, bias=False)
        self.enter_norm = nn.LayerNorm(wide_width, eps=LAYER_NORM_EPS)
        self.block = block
        self.rope: Any = rope
        self.grid = grid
        nn.init.trunc_normal_(self.enter.weight, std=0.02)

    def forward(self, x_BNS: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens ``[B, N, width]`` to ``[B, N, wide_width]``; the rest (EVA's rotary angles) goes to the block."""
        if self.rope is not None:
            angles = self.rope.get_embed(shape=self.grid)
            kwargs["rope"] = angles[0] if angles.ndim == 4 else angles  # learned ones have an axis of blocks, here 1
        out: Tensor = self.block(self.enter_norm(self.enter(x_BNS)), *args, **kwargs)
        return out


def widen_last(
    model: nn.Module,
    arch: str,
    args: dict[str, Any],
    num_classes: int,
    wide_width: int,
    blocks: int = 1,
    keep: WideHeads = "size",
) -> nn.Module:
    """``model`` with its last ``blocks`` blocks wider, its final norm and classifier at ``wide_width``.

    For each of them a second timm model of the same family, one block deep and as wide, supplies the block; the last
    one also the norm and the classifier. Widths and heads: ``geometry.wide_shapes``.

    Raises:
        UsageError: the model is hierarchical, or cannot be widened so.
    """
    shape = shape_of(model, arch)
    check_strategy("widelast", arch, shape, wide_width, blocks, keep)
    narrow: Any = model
    wide: Any = model
    if getattr(narrow, "neck", None):
        raise UsageError(
            f"strategy 'widelast' cannot widen {arch}, which has a neck between its last block and its classifier; use "
            "--strategy lift."
        )
    width, attention = shape.width, narrow.blocks[0].attn
    for index, shape_wide in enumerate(wide_shapes(arch, shape, wide_width, blocks, keep), shape.depth - blocks):
        if shape_wide.heads != shape.heads:
            _require_own_positions(narrow, arch)
        wide_args = {**args, "embed_dim": shape_wide.width, "depth": 1, "num_heads": shape_wide.heads}
        made = shape_of(meta_model(arch, wide_args), arch).width  # without memory: ConViT's `embed_dim` is of a head
        if made != shape_wide.width:
            raise UsageError(
                f"strategy 'widelast' cannot widen block {index} of {arch}: asked for width {shape_wide.width}, timm "
                f"makes one of {made}; use --strategy lift."
            )
        wide = timm.create_model(arch, num_classes=num_classes, **wide_args)
        block = wide.blocks[0]
        for name in ("drop_path", "drop_path1", "drop_path2"):  # a network of one block would have none
            if hasattr(block, name):
                setattr(block, name, getattr(narrow.blocks[index], name))
        if _kind(block) != _kind(narrow.blocks[index]):
            raise UsageError(
                f"strategy 'widelast' cannot widen block {index} of {arch}, which is of another kind than its first "
                "block; use --strategy lift."
            )
        rope = _own_rope(narrow, attention, wide)
        grid = None if rope is None else wide.patch_embed.grid_size
        narrow.blocks[index] = WideBlock(width, shape_wide.width, block, rope, grid)
        if rope is not None and blocks == shape.depth:
            narrow.rope = None  # no block is left that reads it
        width = shape_wide.width
    for name in ("norm", "fc_norm", "head", "head_dist", "attn_pool"):
        if hasattr(narrow, name):
            setattr(narrow, name, getattr(wide, name))
    if hasattr(narrow, "blocks_token_only"):  # CaiT's class attention reads the widened tokens
        narrow.blocks_token_only = wide.blocks_token_only
        narrow.cls_token = wide.cls_token
    narrow.embed_dim = narrow.num_features = narrow.head_hidden_size = wide_width
    return model


def _kind(block: nn.Module) -> tuple[Any, ...]:
    """What a block is made of, whatever its width: ConViT's first blocks and its last ones have other attention."""
    return getattr(block, "window_size", None), [(name, type(part)) for name, part in block.named_modules()]


def _own_rope(narrow: Any, attention: Any, wide: Any) -> nn.Module | None:
    """The wide network's rotary positions, where those of the narrow one do not fit its block."""
    rope = getattr(wide, "rope", None)
    if rope is None:
        return None
    learned = getattr(narrow, "rope_mixed", False)  # for each block and head
    return rope if learned or attention.head_dim != wide.blocks[0].attn.head_dim else None


def _require_own_positions(narrow: Any, arch: str) -> None:
    """Refuse more heads where all blocks share one table of relative positions, a column a head."""
    if getattr(narrow, "shared_rel_pos", None) is not None or getattr(narrow, "rel_pos_bias", None) is not None:
        raise UsageError(
            f"strategy 'widelast' cannot give the last block of {arch} more heads, because its blocks share one table "
            "of relative positions; use --set student.wide_heads=count."
        )


def no_weight_decay_of(module: nn.Module, prefix: str = "") -> set[str]:
    """Names of the parameters that ``module`` exempts from weight decay, as seen from where it is called ``prefix``.

    timm's ``create_optimizer_v2`` asks the outermost module alone, so every wrapper hands on what its inside says.
    """
    listed: Any = getattr(module, "no_weight_decay", None)
    names = set(listed()) if callable(listed) else set()
    for name, inner in module.named_modules():
        if isinstance(inner, WideBlock) and hasattr(inner.rope, "no_weight_decay"):
            names |= {f"{name}.rope.{own}" for own in inner.rope.no_weight_decay()}
    return {f"{prefix}.{name}" if prefix else name for name in names}


def layer_groups_of(module: nn.Module, prefix: str) -> dict[str, Any]:
    """timm's matcher of layers of ``module``, for the names its parameters have where it is called ``prefix``.

    timm's ``create_optimizer_v2`` asks the outermost module alone for it; a name that no pattern matches counts as
    the last layer.
    """
    matchers: dict[str, Any] = module.group_matcher(coarse=False)  # type: ignore[operator]

    def inside(pattern: str) -> str:
        anchored = re.sub(r"(?<!\[)\^", "", pattern)  # its own start is no longer that of the name
        return rf"{re.escape(prefix)}\.(?:{anchored})"

    return {
        name: inside(found) if isinstance(found, str) else [(inside(pattern), last) for pattern, last in found]
        for name, found in matchers.items()
        if found is not None
    }


def taps_alone(network: nn.Module, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
    """The taps ``[B, D, H, W]`` of ascending ``layers`` of a timm network, nothing computed after the last of them."""
    tappable: Any = network
    taps: list[Tensor] = tappable.forward_intermediates(
        images, indices=list(layers), norm=False, output_fmt="NCHW", intermediates_only=True, stop_early=True
    )
    return taps


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
        return taps_alone(self.vit, x, indices)


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

    def no_weight_decay(self) -> set[str]:
        """What timm asks for: the base's position embeddings and tokens."""
        return no_weight_decay_of(self.base.vit, "base.vit")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The base's layers; projector, norm and head are the last one (timm's protocol)."""
        return layer_groups_of(self.base.vit, "base.vit")

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
    """A lift with its projector, LayerNorm and head absorbed exactly (see ``stages.rewrites.lift``).

    ``s_t = sqrt(|R z_t|^2 + eps)``; ``logits = A mean_t(z_t / s_t) + b``, with R ``[rank, Ds]`` and A ``[K, Ds]``.
    """

    def __init__(self, base: TokenBase, rank: int, num_classes: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__()
        self.base = base
        self.eps = eps
        self.root = nn.Linear(self.base.width, rank, bias=False)
        self.head = nn.Linear(self.base.width, num_classes)

    def no_weight_decay(self) -> set[str]:
        """What timm asks for: the base's position embeddings and tokens."""
        return no_weight_decay_of(self.base.vit, "base.vit")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[B, 3, S, S]`` to logits ``[B, K]``."""
        (z_BSHW,) = self.base(x)
        z_BNS = z_BSHW.flatten(2).transpose(1, 2)
        rooted = self.root(z_BNS)
        inverse_scale_BN1 = torch.rsqrt((rooted * rooted).sum(dim=-1, keepdim=True) + self.eps)
        logits: Tensor = self.head((z_BNS * inverse_scale_BN1).mean(dim=1))
        return logits
