"""The student strategies as networks: lift (projector kept or folded) and widened last blocks.

Shape suffixes: B batch, N patch tokens, S student width Ds, T teacher width Dt, K classes, H W patch grid.
Sources: [EM] From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572.
"""

from __future__ import annotations

import math
import re
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.create import create
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.geometry import REFUSALS, check_strategy, meta_model, shape_of, wide_shapes

LAYER_NORM_EPS = 1e-6
"""As in timm's ViTs."""


class WideBlock(nn.Module):
    """A transformer block at a larger width, entered through a linear map and a LayerNorm [EM].

    ``block`` is the wide transformer block. ``rope`` are rotary positions of its own, where those of the network are
    for another head size or number, and ``grid`` the patches ``(H, W)`` they are for.
    """

    def __init__(
        self, width: int, wide_width: int, block: nn.Module, rope: nn.Module | None, grid: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(width, wide_width, bias=False)
        self.enter_norm = nn.LayerNorm(wide_width, eps=LAYER_NORM_EPS)
        self.block = block
        self.rope: Any = rope
        self.grid = grid
        nn.init.trunc_normal_(self.enter.weight, std=0.02)

    def forward(self, x_BNS: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map tokens ``[B, N, width]`` to ``[B, N, wide_width]``; the rest (EVA's rotary angles) goes to the block."""
        if self.rope is not None:
            angles = self.rope.get_embed(shape=self.grid)
            kwargs["rope"] = angles[0] if angles.ndim == 4 else angles  # learned ones have an axis of blocks, here 1
        out: Tensor = self.block(self.enter_norm(self.enter(x_BNS)), *args, **kwargs)
        return out


def widen_last(model: nn.Module, spec: ModelSpec, wide_width: int) -> nn.Module:
    """Widen the last ``spec.wide_blocks`` of ``model``, in place; its final norm and classifier get ``wide_width`` too.

    For each a second timm model of the same family, one block deep and as wide, supplies the block; the last one also
    the norm and the classifier. Widths and heads: ``geometry.wide_shapes``.
    A UsageError is raised if the model is hierarchical, or cannot be widened so.
    """
    arch, blocks = spec.arch, spec.wide_blocks
    shape, family = shape_of(model, arch), family_of(model)
    check_strategy("widelast", arch, shape, wide_width, blocks, spec.wide_heads)
    shapes = wide_shapes(arch, shape, wide_width, blocks, spec.wide_heads)
    reason = family.why_not_widened(model, any(heads != shape.heads for _, heads in shapes))
    if reason:
        raise UsageError(f"strategy 'widelast' {reason.format(arch=arch)}")
    sequence = family.blocks(model)
    first, entering = sequence[0], shape.width
    for index, (width, heads) in enumerate(shapes, shape.depth - blocks):
        wide_args = {**spec.args, **family.sized(width, 1, heads)}
        made = shape_of(meta_model(arch, wide_args), arch).width  # without memory: ConViT's `embed_dim` is of a head
        if made != width:
            raise UsageError(
                f"strategy 'widelast' cannot widen block {index} of {arch}: asked for width {width}, timm makes one of "
                f"{made}; use --strategy lift."
            )
        wide: Any = create(arch, wide_args, spec.num_classes)
        block = family.blocks(wide)[0]
        for name in ("drop_path", "drop_path1", "drop_path2"):  # a network of one block would have none
            if hasattr(block, name):
                setattr(block, name, getattr(sequence[index], name))
        if _kind(block) != _kind(sequence[index]):
            raise UsageError(
                f"strategy 'widelast' cannot widen block {index} of {arch}, which is of another kind than its first "
                "block; use --strategy lift."
            )
        rope = family.own_rotation(model, first, wide)
        grid = None if rope is None else wide.patch_embed.grid_size
        sequence[index] = WideBlock(entering, width, block, rope, grid)
        entering = width
    if rope is not None and blocks == shape.depth:
        known: Any = model
        known.rope = None  # no block is left that reads it
    family.take_end(model, wide, wide_width)
    return model


def _kind(block: nn.Module) -> tuple[Any, ...]:
    """Return what a block is made of, whatever its width: ConViT's first blocks have other attention than its last."""
    return getattr(block, "window_size", None), [(name, type(part)) for name, part in block.named_modules()]


def no_weight_decay_of(module: nn.Module, prefix: str) -> set[str]:
    """Return the parameters that ``module``, called ``prefix`` from outside, exempts from weight decay.

    timm's ``create_optimizer_v2`` asks the outermost module alone, so every wrapper hands on what its inside says.
    """
    listed: Any = getattr(module, "no_weight_decay", None)
    names = set(listed()) if callable(listed) else set()
    for name, inner in module.named_modules():
        if isinstance(inner, WideBlock) and hasattr(inner.rope, "no_weight_decay"):
            names |= {f"{name}.rope.{own}" for own in inner.rope.no_weight_decay()}
    return {f"{prefix}.{name}" for name in names}


def layer_groups_of(module: nn.Module, prefix: str) -> Any:
    """Return timm's matcher of layers of ``module``, called ``prefix``; a name that it does not know is the last."""
    known: Any = getattr(module, "group_matcher", None)  # a user's own network has none, and one layer
    matchers: Any = known(coarse=False) if known else {}
    if callable(matchers):  # CaiT's
        start = f"{prefix}."
        return lambda name: matchers(name.removeprefix(start)) if name.startswith(start) else math.inf

    def inside(pattern: str) -> str:
        anchored = re.sub(r"(?<!\[)\^", "", pattern)  # its own start is no longer that of the name
        return rf"{re.escape(prefix)}\.(?:{anchored})"

    return {
        name: inside(found) if isinstance(found, str) else [(inside(pattern), last) for pattern, last in found]
        for name, found in matchers.items()
        if found is not None
    }


def taps_alone(network: nn.Module, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
    """Return the taps ``[B, D, H, W]`` of ascending ``layers``, nothing computed after the last of them."""
    return family_of(network).taps(network, images, layers)


class TokenBase(nn.Module):
    """A timm network cut to a lift's input, before any norm or layer that stands between it and the classifier.

    Of equal blocks that is the last block's patch tokens; of other networks the last map before pooling, as timm's
    ``forward_features`` gives it, or the last tap where that is no map. ``images`` ``[B, C, S, S]`` are such as the
    network takes, on the meta device; they are needed for networks whose family is not known.
    """

    def __init__(self, model: nn.Module, arch: str, images: Tensor | None = None) -> None:
        super().__init__()
        shape, family = shape_of(model, arch), family_of(model)
        check_strategy("lift", arch, shape, None)
        family.cut_to_tokens(model)
        self.vit = model
        self.width = shape.width
        self.depth = shape.depth
        self.pooled = False
        """Whether its input is the last map before pooling, and not a tap."""
        if images is not None and not (shape.isotropic and family.networks):
            self._cut(arch, not shape.isotropic and hasattr(model, "forward_features"), images)

    def _cut(self, arch: str, pools: bool, images: Tensor) -> None:
        """Find on a copy without weights what the lift reads, and remove the rest, so that all has a gradient."""
        copy = deepcopy(self.vit).to("meta").eval().requires_grad_(True)

        def read(pools: bool) -> Tensor:
            found = family_of(copy).map_and_taps(copy, images, ())[0] if pools else None
            self.pooled = found is not None
            return taps_alone(copy, images, (self.depth - 1,))[0] if found is None else found

        try:
            seen = read(pools)
            reached = _leaves(seen)
            unread = {name for name, parameter in copy.named_parameters() if id(parameter) not in reached}
            _remove(copy, unread)
            read(self.pooled)  # CrossViT computes one branch with the other, though nothing reads what comes of it
        except (*REFUSALS, AttributeError) as error:
            raise UsageError(
                f"strategy 'lift' reads the last map of a network alone, and {arch} cannot be cut to that "
                f"({' '.join(str(error).split())[:120]}); use --strategy plain."
            ) from error
        self.width = int(seen.shape[1])
        _remove(self.vit, unread)

    def forward(self, x: Tensor, indices: tuple[int, ...] | None = None) -> list[Tensor]:
        """Return taps ``[B, D, H, W]`` of ``indices`` (default: the last alone), ascending; the last is its input."""
        last = self.depth - 1
        indices = (last,) if indices is None else indices
        if not self.pooled or last not in indices:
            return taps_alone(self.vit, x, indices)
        found, taps = family_of(self.vit).map_and_taps(self.vit, x, indices[:-1])
        return taps if found is None else [*taps, found]


def _remove(network: nn.Module, unread: set[str]) -> None:
    """Remove, in place, the parameters of these names, with the modules that have no others."""
    removed: list[str] = []
    for name, module in list(network.named_modules()):
        own = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
        listed = isinstance(module, (nn.ModuleList, nn.ModuleDict))  # goes on being walked through
        if own and unread.issuperset(own) and not listed and not any(name.startswith(one) for one in removed):
            network.set_submodule(name, nn.Identity())
            removed.append(f"{name}.")
    for name in unread & {name for name, _ in network.named_parameters()}:  # such as a class token
        parent, _, own_name = name.rpartition(".")
        network.get_submodule(parent).register_parameter(own_name, None)


def _leaves(output: Tensor) -> set[int]:
    """Return the ids of the parameters that ``output`` was computed from."""
    seen: set[Any] = set()
    left, found = [output.grad_fn], set()
    while left:
        node: Any = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.add(id(getattr(node, "variable", None)))
            left += [before for before, _ in node.next_functions]
    return found


class LiftStudent(nn.Module):
    """[EM] lift: last patch tokens -> P (Linear Ds->Dt, no bias, then LayerNorm) = f; logits = head(mean of f).

    The same of a CNN's last map before pooling (this project's own), whose positions are its tokens.
    """

    def __init__(
        self, model: nn.Module, arch: str, lift_width: int, num_classes: int, images: Tensor | None = None
    ) -> None:
        super().__init__()
        self.base = TokenBase(model, arch, images)
        self.projector = nn.Linear(self.base.width, lift_width, bias=False)
        self.norm = nn.LayerNorm(lift_width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(lift_width, num_classes)
        nn.init.trunc_normal_(self.projector.weight, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def no_weight_decay(self) -> set[str]:
        """Return what timm asks for: the base's position embeddings and tokens."""
        return no_weight_decay_of(self.base.vit, "base.vit")

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return the base's layers; projector, norm and head are the last one (timm's protocol)."""
        return layer_groups_of(self.base.vit, "base.vit")

    def forward_with_taps(self, x: Tensor, indices: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return logits ``[B, K]``, and taps of ascending ``indices``: ``[B, Ds, H, W]``, the last one lifted to Dt."""
        last = self.base.depth - 1
        taps = self.base(x, tuple(sorted({*indices, last})))
        z_BSHW = taps[-1]
        f_BHWT = self.norm(self.projector(z_BSHW.permute(0, 2, 3, 1)))
        logits: Tensor = self.head(f_BHWT.mean(dim=(1, 2)))
        lifted = f_BHWT.permute(0, 3, 1, 2)
        return logits, [*taps[:-1], lifted] if last in indices else taps[:-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, 3, S, S]`` to logits ``[B, K]``."""
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
        """Return what timm asks for: the base's position embeddings and tokens."""
        return no_weight_decay_of(self.base.vit, "base.vit")

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return the base's layers; root and head are the last one (timm's protocol)."""
        return layer_groups_of(self.base.vit, "base.vit")

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, 3, S, S]`` to logits ``[B, K]``."""
        return self.forward_with_taps(x, ())[0]

    def forward_with_taps(self, x: Tensor, indices: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return logits ``[B, K]``, and the base's taps ``[B, Ds, H, W]`` of ascending ``indices``."""
        last = self.base.depth - 1
        taps = self.base(x, tuple(sorted({*indices, last})))
        z_BNS = taps[-1].flatten(2).transpose(1, 2)
        rooted = self.root(z_BNS)
        inverse_scale_BN1 = torch.rsqrt((rooted * rooted).sum(dim=-1, keepdim=True) + self.eps)
        logits: Tensor = self.head((z_BNS * inverse_scale_BN1).mean(dim=1))
        return logits, taps if last in indices else taps[:-1]


def final_norm(model: nn.Module) -> tuple[nn.Module, int] | None:
    """Return the final norm and its width; None where there is none that works token by token over channels.

    A lifted student ends with its projector's norm, which stands before the tap already.
    """
    norm: Any = None if isinstance(model, (LiftStudent, FoldedLift)) else family_of(model).final_norm(model)
    return None if norm is None else (norm, int(norm.normalized_shape[-1]))


def network_inside(model: nn.Module) -> Any:
    """Return the timm network inside a student of any strategy; a timm network itself."""
    return model.base.vit if isinstance(model, (LiftStudent, FoldedLift)) else model
