"""Which networks can give weights to which: ViTs of equal blocks with plain or talking-heads attention."""

from __future__ import annotations

from typing import Any

from timm.layers import Mlp
from timm.models.cait import LayerScaleBlock, TalkingHeadAttn
from timm.models.vision_transformer import Attention, Block
from torch import nn

from vitcompress.stages.models.geometry import meta_model
from vitcompress.stages.models.students import LiftStudent, WideBlock


def timm_network(model: nn.Module) -> Any:
    """The timm network inside a student of any strategy."""
    return model.base.vit if isinstance(model, LiftStudent) else model


def inner(block: nn.Module) -> Any:
    """The transformer block itself, without what leads into a widened one."""
    return block.block if isinstance(block, WideBlock) else block


def final_norm(network: Any) -> nn.LayerNorm | None:
    """The norm before the classifier: of all tokens, or of their mean."""
    norms = [getattr(network, name, None) for name in ("norm", "fc_norm")]
    return next((norm for norm in norms if isinstance(norm, nn.LayerNorm)), None)


def why_not(teacher: tuple[str, dict[str, Any]], student: tuple[str, dict[str, Any]]) -> str:
    """Why a student cannot take its first weights from a teacher, in words; empty where it can.

    Args:
        teacher: architecture and arguments of ``timm.create_model``.
        student: likewise; the plain network, whatever the strategy makes of it.
    """
    for arch, args in (teacher, student):
        reason = unlike(meta_model(arch, args))
        if reason:
            return f"{arch} {reason}"
    large: Any = meta_model(*teacher)
    small: Any = meta_model(*student)
    if small.embed_dim > large.embed_dim:
        return f"{student[0]} is wider ({small.embed_dim}) than {teacher[0]} ({large.embed_dim})"
    if len(small.blocks) > len(large.blocks):
        return f"{student[0]} has more blocks ({len(small.blocks)}) than {teacher[0]} ({len(large.blocks)})"
    return ""


def unlike(model: nn.Module) -> str:
    """What of a network is not as inheriting needs it, in words that follow its name; empty if nothing is."""
    network: Any = timm_network(model)
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or not len(blocks):
        return "has no sequence of equal blocks"
    for block in map(inner, blocks):
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
