"""Take a timm ViT apart into the parts that rewrites work on, no number changed.

Every class is known by name: of one that is not, its forward may do anything, so it is refused with its name, never
guessed at.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from timm.layers import Attention as VitAttention
from timm.layers import AttentionRope, GluMlp, LayerScale, Mlp, PatchEmbed, SwiGLU
from timm.models import beit, cait, eva, vision_transformer
from torch import Tensor, nn

from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import FoldedLift, LiftStudent, WideBlock
from vitcompress.stages.rewrites.attend import Attention, PermutedMix, Rotation
from vitcompress.stages.rewrites.parts import (
    Block,
    ClassAttentionReadout,
    ConvPatches,
    Embedding,
    FoldedReadout,
    MeanReadout,
    Network,
    Readout,
    TokenReadout,
)
from vitcompress.stages.rewrites.tokens import Span

_PLAIN_BLOCKS = (
    vision_transformer.Block,
    beit.Block,
    eva.EvaBlock,
    cait.LayerScaleBlock,
    cait.LayerScaleBlockClassAttn,
)
_MLPS = (Mlp, GluMlp, SwiGLU)


class NotTakenApart(Exception):  # noqa: N818 - no error: such a network is deployed as it is
    """The network has a part whose computation is not known here; the text names it."""


def network_from_module(module: nn.Module) -> Network:
    """Take a network apart, in eval mode; ``module`` is left as it was, and no weights are shared.

    Args:
        module: a timm ViT, DeiT, BEiT, EVA or CaiT, one of them widened, or a lift student, kept or folded.

    Raises:
        NotTakenApart: it has a part that is not known here.
    """
    module = deepcopy(module).eval()
    if isinstance(module, (LiftStudent, FoldedLift)):
        vit: Any = module.base.vit
        return _network(vit, _lift_readout(module, len(family_of(vit).prefix_tokens(vit))))
    return _network(module, None)


def _lift_readout(module: LiftStudent | FoldedLift, prefix: int) -> Readout:
    if isinstance(module, FoldedLift):
        return FoldedReadout(module.root, module.head, module.eps, prefix)
    return MeanReadout(nn.Sequential(module.projector, module.norm), nn.Identity(), module.head, prefix)


def _network(vit: Any, readout: Readout | None) -> Network:
    family = family_of(vit)
    if not (family.parts and family.has_exact_class(vit)):
        raise NotTakenApart(f"{type(vit).__name__} is not a ViT, DeiT, BEiT, EVA or CaiT")
    if getattr(vit, "dynamic_img_size", False):
        raise NotTakenApart("its input size is dynamic")
    embedding = _embedding(vit)
    rotations = _rotations(vit)
    shared = getattr(vit, "rel_pos_bias", None)
    bias = shared().unsqueeze(0) if shared is not None else None
    blocks = [_block(block, rotation, bias) for block, rotation in zip(vit.blocks, rotations, strict=True)]
    return Network(embedding, blocks, _readout(vit) if readout is None else readout).eval()


def _embedding(vit: Any) -> Embedding:
    patch = vit.patch_embed
    if type(patch) is not PatchEmbed or patch.dynamic_img_pad or not patch.flatten or patch.img_size is None:
        raise NotTakenApart(f"its patch embedding, {type(patch).__name__}, is not the plain one of fixed size")
    names = () if family_of(vit).class_attention else ("cls_token", "dist_token", "reg_token")
    tokens = [getattr(vit, name, None) for name in names]
    present = [token for token in tokens if token is not None]
    prefix = torch.cat(present, dim=1) if present else None
    position = vit.pos_embed
    if position is not None and prefix is not None and position.shape[1] == patch.num_patches:
        position = torch.cat([torch.zeros_like(prefix), position], dim=1)  # DeiT-III: patches alone have positions
    embedding = Embedding(ConvPatches(patch.proj), prefix, position)
    embedding.patch_norm, embedding.norm = patch.norm, getattr(vit, "norm_pre", nn.Identity())
    return embedding


def _rotations(vit: Any) -> list[Rotation | None]:
    """Return rotary positions for each block, as timm's EVA hands them out."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return [None] * len(vit.blocks)
    angles = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=vit.patch_embed.grid_size)
    own = list(angles) if getattr(vit, "rope_mixed", False) else [angles] * len(vit.blocks)
    return [_rotation(each, _inner(block).attn) for each, block in zip(own, vit.blocks, strict=True)]


def _rotation(angles: Tensor, attention: Any) -> Rotation:
    return Rotation(angles, int(attention.num_prefix_tokens), bool(getattr(attention, "rotate_half", False)))


def _inner(block: Any) -> Any:
    return block.block if type(block) is WideBlock else block


def _block(block: Any, rotation: Rotation | None, bias: Tensor | None) -> Block:
    enter: nn.Module = nn.Identity()
    if type(block) is WideBlock:
        enter = nn.Sequential(block.enter, block.enter_norm)
        if block.rope is not None:
            angles = block.rope.get_embed(shape=block.grid)
            rotation = _rotation(angles[0] if angles.ndim == 4 else angles, block.block.attn)
        block = block.block
    if type(block) not in _PLAIN_BLOCKS:
        raise NotTakenApart(f"the block {type(block).__name__} is not known here")
    if type(block.mlp) not in _MLPS or not isinstance(block.mlp.fc2, nn.Linear):
        raise NotTakenApart(f"the MLP {type(block.mlp).__name__} is not known here")
    lowered = Block(block.norm1, _attention(block.attn, rotation, bias), block.norm2, block.mlp)
    lowered.enter = enter
    lowered.scale1, lowered.scale2 = (_layer_scale(block, index) for index in (1, 2))
    if type(block) is cait.LayerScaleBlockClassAttn:
        lowered.span = Span(0, 1)
    return lowered


def _layer_scale(block: Any, index: int) -> nn.Parameter | None:
    module: Any = getattr(block, f"ls{index}", None)
    if type(module) is LayerScale:
        own: nn.Parameter = module.gamma
        return own
    if module is not None and not isinstance(module, nn.Identity):
        raise NotTakenApart(f"the scale {type(module).__name__} is not known here")
    gamma: nn.Parameter | None = getattr(block, f"gamma_{index}", None)
    return gamma


def _attention(attn: Any, rotation: Rotation | None, shared_bias: Tensor | None) -> Attention:
    known = (VitAttention, AttentionRope, beit.Attention, eva.EvaAttention, cait.TalkingHeadAttn, cait.ClassAttn)
    if type(attn) not in known or getattr(attn, "num_kv_groups", 1) != 1:
        raise NotTakenApart(f"the attention {type(attn).__name__} is not known here")
    query, key, value = _projections(attn)
    lowered = Attention(query, key, value, attn.proj, int(attn.num_heads), float(attn.scale))
    for name, own in (("query_norm", "q_norm"), ("key_norm", "k_norm"), ("inner_norm", "norm")):
        setattr(lowered, name, getattr(attn, own, nn.Identity()))
    lowered.gate = getattr(attn, "gate", None)
    lowered.rotation = rotation
    if type(attn) is cait.TalkingHeadAttn:
        lowered.mix_scores, lowered.mix_weights = PermutedMix(attn.proj_l), PermutedMix(attn.proj_w)
    if getattr(attn, "relative_position_bias_table", None) is not None:
        own_bias = attn._get_rel_pos_bias()
        shared_bias = own_bias if shared_bias is None else own_bias + shared_bias
    lowered.bias_1HTT = None if shared_bias is None else shared_bias.detach().clone()
    return lowered


def _projections(attn: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Return query, key and value maps of their own, however the family keeps them."""
    if type(attn) is cait.ClassAttn:
        return attn.q, attn.k, attn.v
    if attn.qkv is None:
        return attn.q_proj, attn.k_proj, attn.v_proj
    weights = attn.qkv.weight.chunk(3)
    biases: Any = (None, None, None)
    if attn.qkv.bias is not None:
        biases = attn.qkv.bias.chunk(3)
    elif getattr(attn, "q_bias", None) is not None:  # BEiT and EVA: the key's is a buffer of zeros
        biases = (attn.q_bias, attn.k_bias if bool(attn.k_bias.any()) else None, attn.v_bias)
    query, key, value = (linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
    return query, key, value


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer of its own from these numbers, in their dtype."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def _readout(vit: Any) -> Readout:
    if getattr(vit, "attn_pool", None) is not None:
        raise NotTakenApart(f"its pooling, {type(vit.attn_pool).__name__}, is not known here")
    norm, mean_norm = vit.norm, getattr(vit, "fc_norm", nn.Identity())
    class_attention = family_of(vit).class_attention
    if hasattr(vit, "head_dist"):
        return TokenReadout(norm, [vit.head, vit.head_dist])
    if class_attention and vit.global_pool == "token":
        blocks = [_block(block, None, None) for block in vit.blocks_token_only]
        return ClassAttentionReadout(vit.cls_token, blocks, norm, vit.head)
    if vit.global_pool == "token":
        return TokenReadout(nn.Sequential(norm, mean_norm), [vit.head])
    if vit.global_pool == "avg" and not class_attention:
        prefix = 0 if getattr(vit, "pool_include_prefix", False) else int(vit.num_prefix_tokens)
        return MeanReadout(norm, mean_norm, vit.head, prefix)
    raise NotTakenApart(f"its pooling, '{vit.global_pool}', is not known here")
