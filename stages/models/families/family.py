"""The interface of a family, and its answers for any network that has timm's ``forward_intermediates``.

A family with other answers is a subclass that overrides them. Shapes: B batch, C channels of a tap, H W its grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from timm.layers import LayerNorm2d, Mlp
from timm.models.cait import LayerScaleBlock, TalkingHeadAttn
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

REDUCED_SIZE = 32
"""Side of the embedded digits, pixels."""
_REDUCTION = 6
"""Width and depth of the reduced geometry are this part of the published ones."""
_LEAST_HEAD_SIZE = 8
"""Channels of a head in the reduced geometry."""
_SEQUENCES = (nn.Sequential, nn.ModuleList)
_END = ("norm", "fc_norm", "head", "head_dist")
"""What timm's ViTs compute after their last block."""


@dataclass(frozen=True)
class Shape:
    """What the strategies need to know about a network."""

    width: int
    """Token width of the last tap."""
    depth: int
    """Number of taps: blocks of an isotropic ViT, stages of a hierarchical one."""
    heads: int | None
    """Attention heads a block; None for hierarchical models."""
    rotary: bool = False
    """Whether positions are rotations of pairs of channels, along two axes, so that 4 divides the size of a head."""

    @property
    def isotropic(self) -> bool:
        """Return whether all blocks have the same width, as lift and widelast need."""
        return self.heads is not None


class Family:
    """What is to be known of a kind of network. ``network`` is always one of timm, or one registered with it."""

    networks: tuple[str, ...] = ()
    """Whom it is for: full names of classes, whose subclasses are meant too, or names of modules."""
    parts = False
    """Whether ``stages.rewrites.lower`` takes the classes of ``networks`` apart before export."""
    width_argument = "embed_dim"
    """Timm's argument for the width of every block, its heads as many as before."""
    class_attention = False
    """Whether the class token joins the patch tokens only after the tapped blocks, in blocks of its own (CaiT)."""

    def has_exact_class(self, network: nn.Module) -> bool:
        """Return whether the class of ``network`` itself is in ``networks``, not one that it inherits from."""
        return f"{type(network).__module__}.{type(network).__qualname__}" in self.networks

    def shape(self, network: nn.Module) -> Shape | None:
        """Return the network's shape; None if it has neither equal blocks nor timm's interface of taps."""
        blocks, width = getattr(network, "blocks", None), getattr(network, "embed_dim", None)
        attention: Any = getattr(blocks[0], "attn", None) if isinstance(blocks, _SEQUENCES) and len(blocks) else None
        # Hiera's blocks have attention too, and widths of their own.
        if blocks is not None and isinstance(width, int) and hasattr(attention, "num_heads"):
            rotary = getattr(network, "rope", None) is not None
            return Shape(width, len(blocks), int(attention.num_heads), rotary)
        taps: Any = getattr(network, "feature_info", None)
        if taps and hasattr(network, "forward_intermediates"):
            return Shape(int(taps[-1]["num_chs"]), len(taps), None)
        return None

    def blocks(self, network: nn.Module) -> Any:
        """Return the sequence of equal blocks, of which an item can be replaced."""
        return network.blocks

    def patch_side(self, network: nn.Module) -> int | None:
        """Return what the side of the input must be a multiple of, pixels; None where there is no such patch."""
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
        if patch is None:
            return None
        return math.lcm(*patch) if isinstance(patch, (tuple, list)) else int(patch)

    def stride(self, network: nn.Module) -> int | None:
        """Return how many pixels, along a side, a position of the last tap stands for; None where timm does not say."""
        taps: Any = getattr(network, "feature_info", None)
        return int(taps[-1]["reduction"]) if taps else None

    def grid(self, network: nn.Module) -> tuple[int, int] | None:
        """Return rows and columns of patches; None where they are not fixed."""
        grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
        return None if grid is None else (int(grid[0]), int(grid[1]))

    # ---- Taps

    def taps(self, network: nn.Module, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Return the taps ``[B, C, H, W]`` of ascending ``layers``; nothing is computed after the last of them."""
        tappable: Any = network
        taps: list[Tensor] = tappable.forward_intermediates(
            images, indices=list(layers), norm=False, output_fmt="NCHW", intermediates_only=True, stop_early=True
        )
        return taps

    def logits_and_taps(
        self, network: nn.Module, images: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits ``[B, K]``, and the taps ``[B, C, H, W]`` of ascending ``layers``."""
        tappable: Any = network
        final, taps = tappable.forward_intermediates(images, indices=list(layers), norm=False, output_fmt="NCHW")
        return tappable.forward_head(final), taps

    def map_and_taps(
        self, network: nn.Module, images: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return the last map before pooling ``[B, C, H, W]``, and the taps of ascending ``layers``.

        The map is what timm's ``forward_features`` gives; None where that is no map, but tokens or several maps.
        """
        known: Any = network
        taps: list[Tensor] = []
        if layers:
            final, taps = known.forward_intermediates(images, indices=list(layers), norm=False, output_fmt="NCHW")
        else:
            final = known.forward_features(images)
        if not isinstance(final, Tensor) or final.ndim != 4:
            return None, taps
        return final.permute(0, 3, 1, 2) if getattr(known, "output_fmt", "NCHW") == "NHWC" else final, taps

    def tapped(self, network: nn.Module, layer: int) -> nn.Module:
        """Return the block, or stage, that the tap of ``layer`` comes out of.

        Where timm names a module without parameters (ResNet's first tap is an activation), it is the last one before it
        that has some; where timm names none that is there (HRNet, Twins), the first of all.
        """
        known: Any = network
        name = str(known.feature_info[layer]["module"])
        modules: dict[str, nn.Module] = dict(network.named_modules())
        if name in modules and next(modules[name].parameters(), None) is not None:
            return modules[name]
        owners = [own for own, module in modules.items() if next(module.parameters(recurse=False), None) is not None]
        order = list(modules)
        before = [own for own in owners if name in modules and order.index(own) < order.index(name)]
        return modules[before[-1] if before else owners[0]]

    # ---- The end of the network

    def classifies(self, network: nn.Module) -> bool:
        """Return whether the network gives logits of classes; in timm it then has ``get_classifier``."""
        return hasattr(network, "get_classifier")

    def classifier(self, network: nn.Module) -> tuple[str, ...]:
        """Return the names of the modules that give the logits."""
        names = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or "head"
        return (names,) if isinstance(names, str) else tuple(names)

    def final_norm(self, network: nn.Module) -> nn.Module | None:
        """Return the norm before the classifier, of tokens or of their mean; None without one over channels alone."""
        for norm in (getattr(network, name, None) for name in ("norm", "fc_norm")):
            shape = getattr(norm, "normalized_shape", None)
            if isinstance(norm, nn.Module) and not isinstance(norm, LayerNorm2d) and shape and len(shape) == 1:
                return norm
        return None

    # ---- Students

    def cut_to_tokens(self, network: nn.Module) -> None:
        """Remove, in place, what a lift does not read: everything after the tap of the last block.

        Every parameter that remains gets a gradient, so that DDP needs no ``find_unused_parameters``. Of a network
        without equal blocks nothing is removed here: what its lift does not read is found by ``TokenBase``.
        """
        known: Any = network
        shape = self.shape(network)
        if shape is None or not shape.isotropic:
            return
        for name in _END:
            if hasattr(known, name):
                setattr(known, name, nn.Identity())
        if getattr(known, "attn_pool", None) is not None:
            known.attn_pool = None

    def sized(self, width: int, depth: int, heads: int) -> dict[str, Any]:
        """Return the arguments of timm that make a network of equal blocks of this shape."""
        return {self.width_argument: width, "depth": depth, "num_heads": heads}

    def why_not_widened(self, network: nn.Module, more_heads: bool) -> str:
        """Return why the last blocks cannot be widened, and what to do, as an end of a sentence; empty if they can.

        ``{arch}`` in it stands for the network's name; ``more_heads``: a widened block has another number of heads.
        """
        if getattr(network, "neck", None):
            return (
                "cannot widen {arch}, which has a neck between its last block and its classifier; use --strategy lift."
            )
        shared = (getattr(network, name, None) for name in ("shared_rel_pos", "rel_pos_bias"))
        if more_heads and any(table is not None for table in shared):
            return (
                "cannot give the last block of {arch} more heads, because its blocks share one table of relative "
                "positions; use --set student.wide_heads=count."
            )
        return ""

    def own_rotation(self, narrow: nn.Module, block: Any, wide: nn.Module) -> nn.Module | None:
        """Return the rotary positions of ``wide``, where those of ``narrow`` with its ``block`` do not fit it."""
        rotation: nn.Module | None = getattr(wide, "rope", None)
        if rotation is None:
            return None
        learned = getattr(narrow, "rope_mixed", False)  # for each block and head
        return rotation if learned or block.attn.head_dim != self.blocks(wide)[0].attn.head_dim else None

    def take_end(self, narrow: nn.Module, wide: nn.Module, width: int) -> None:
        """Give ``narrow``, in place, what reads the tokens of the last block in ``wide``, which is ``width`` wide."""
        for name in (*_END, "attn_pool"):
            if hasattr(narrow, name):
                setattr(narrow, name, getattr(wide, name))
        narrow.embed_dim = narrow.num_features = narrow.head_hidden_size = width  # type: ignore[assignment]

    # ---- Export

    def rewrite(self, network: Any) -> tuple[str, ...]:
        """Make a network to be exported faster, in place, without changing its logits; return what was done, in words.

        It is asked only for the classes in ``networks`` themselves, and not where ``parts`` is true.
        """
        return ()

    # ---- Reduced geometry

    def reduced_args(self, network: nn.Module) -> dict[str, Any] | None:
        """Return timm's arguments for the reduced geometry of a published network; None if there is no such form."""
        shape = self.shape(network)
        if shape is None or shape.heads is None:
            return None if shape is None else _reduced_stages(network)
        width, heads = shape.width // _REDUCTION, shape.heads
        while width % heads or width // heads < _LEAST_HEAD_SIZE:
            heads -= 1
        args = {
            "img_size": REDUCED_SIZE,
            "patch_size": 8,
            **self.sized(width, max(2, shape.depth // _REDUCTION), heads),
        }
        if any("gamma" in name for name, _ in network.named_parameters()):
            args["init_values"] = 0.1
        return args

    # ---- Weights for a student of another network

    def prefix_tokens(self, network: nn.Module) -> tuple[str, ...]:
        """Return the tokens that the tapped blocks see before the patches: ``cls``, ``dist``, ``reg0``, ...

        The parameter of a token is called ``cls_token``, ``dist_token`` or, for all registers, ``reg_token``.
        """
        tokens = {name: getattr(network, f"{name}_token", None) for name in ("cls", "dist", "reg")}
        counts = {name: 0 if token is None else int(token.shape[1]) for name, token in tokens.items()}
        single = tuple(name for name in ("cls", "dist") if counts[name])
        return single + tuple(f"reg{index}" for index in range(counts["reg"]))

    def why_not_inherited(self, network: nn.Module) -> str:
        """Return what of a network is not as inheriting needs it, in words that follow its name."""
        blocks = getattr(network, "blocks", None)
        if not isinstance(blocks, _SEQUENCES):
            return "has no sequence of equal blocks"
        for block in blocks:
            if type(block) not in (Block, LayerScaleBlock):
                return f"has blocks of another kind ({type(block).__name__})"
            reason = _unlike_block(block)
            if reason:
                return reason
        stem = getattr(network, "patch_embed", None)
        if not isinstance(getattr(stem, "proj", None), nn.Conv2d) or _present(getattr(stem, "norm", None)):
            return "embeds patches by more than one convolution"
        if getattr(network, "pos_embed", None) is None or getattr(network, "rope", None) is not None:
            return "has no table of absolute positions"
        if _present(getattr(network, "norm_pre", None)):
            return "normalises tokens before its first block"
        return ""


def _reduced_stages(network: Any) -> dict[str, Any] | None:
    """Return half the depth and a sixth of the width of a head, with windows that fit the reduced size."""
    layers = getattr(network, "layers", None)
    stages: list[Any] = list(layers) if isinstance(layers, _SEQUENCES) else []
    if not stages or not all(hasattr(stage, "blocks") and hasattr(stage.blocks[0], "attn") for stage in stages):
        return None
    heads = tuple(int(stage.blocks[0].attn.num_heads) for stage in stages)
    head_size = int(network.embed_dim) // heads[0]
    return {
        "img_size": REDUCED_SIZE,
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": heads[0] * max(_LEAST_HEAD_SIZE, head_size // _REDUCTION),
        "depths": tuple(max(1, len(stage.blocks) // 2) for stage in stages),
        "num_heads": heads,
    }


def _unlike_block(block: Any) -> str:
    attention = block.attn
    if type(attention) not in (Attention, TalkingHeadAttn):
        return f"has another attention ({type(attention).__name__})"
    if any(_present(getattr(attention, name, None)) for name in ("q_norm", "k_norm", "norm", "gate")):
        return "normalises or gates inside its attention"
    if type(block.mlp) is not Mlp or _present(block.mlp.norm) or not isinstance(block.mlp.act, nn.GELU):
        return "has another MLP than two linear maps around a GELU"
    if not all(isinstance(norm, nn.LayerNorm) and norm.elementwise_affine for norm in (block.norm1, block.norm2)):
        return "has another norm than LayerNorm"
    return ""


def _present(module: nn.Module | None) -> bool:
    return module is not None and not isinstance(module, nn.Identity)
