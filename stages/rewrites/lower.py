"""Take a timm ViT apart into the parts that are deployed, with what can be folded into its weights folded there.

Every class is known by name: of one that is not, its forward may do anything, so it is refused with its name, never
guessed at. What is folded, and why logits stay the same:

- LayerScale. A block adds ``g * f(x)`` with one factor a channel, and f ends in a linear layer (attention's projection,
  the MLP's second layer): ``g * (W h + b) = (diag(g) W) h + g * b``.
- With q = Wq u + bq and so on, a query's scores are ``s (q . k_n)`` over the tokens n, and softmax ignores what is the
  same for all n. ``s q = (s Wq) u + s bq``: the scale goes into the query's weights, or into the weights of its norm.
- ``q . (Wk u_n + bk) = q . Wk u_n + q . bk``, whose last term is the same for all n: the key's bias goes. Not so where
  keys are normalised or rotated, nor of anything behind talking heads: these mix the heads of one n, so they too turn
  what is the same for all n into what is the same for all n.
- Weights that sum to 1 take ``sum_n a_n (Wv u_n + bv) = sum_n a_n Wv u_n + bv``: the value's bias goes through the
  projection into its bias, ``b + W bv``. Not so behind talking heads, a norm or a gate.
- Talking heads before softmax, ``W A + c``: c is the same for all n and goes. After it,
  ``(W A + c 1) V = (W A) V + c (sum_n v_n)``: one sum for a head instead of an addition for each weight. ``W A`` over
  heads is one product from the left, with no permutation.
- Prefix tokens do not depend on the image, so their positions are added once.
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
from vitcompress.stages.models.students import FoldedLift, LiftStudent, WideBlock, network_inside
from vitcompress.stages.rewrites.attend import Attention, LeftMix, Rotation
from vitcompress.stages.rewrites.parts import (
    Block,
    ClassAttentionReadout,
    Embedding,
    MeanReadout,
    Network,
    Readout,
    RootNorm,
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
_ATTENTIONS = (VitAttention, AttentionRope, beit.Attention, eva.EvaAttention, cait.TalkingHeadAttn, cait.ClassAttn)


class NotTakenApart(Exception):  # noqa: N818 - no error: such a network is deployed as it is
    """The network has a part whose computation is not known here; the text names it."""


@torch.no_grad()
def network_from_module(module: nn.Module) -> Network:
    """Take a network apart, in eval mode; ``module`` is left as it was, and no weights are shared.

    ``module`` is a timm ViT, DeiT, BEiT, EVA or CaiT, one of them widened, or a lift student, kept or folded.
    NotTakenApart is raised if it has a part that is not known here.
    """
    module = deepcopy(module).eval()
    vit = network_inside(module)
    family = family_of(vit)
    if not (family.parts and family.has_exact_class(vit)):
        raise NotTakenApart(f"{type(vit).__name__} is not a ViT, DeiT, BEiT, EVA or CaiT")
    if getattr(vit, "dynamic_img_size", False):
        raise NotTakenApart("its input size is dynamic")
    embedding = _embedding(vit)
    shared = getattr(vit, "rel_pos_bias", None)
    bias = shared().unsqueeze(0) if shared is not None else None
    blocks = [_block(block, rotation, bias) for block, rotation in zip(vit.blocks, _rotations(vit), strict=True)]
    return Network(embedding, blocks, _readout(module, vit)).eval()


def _embedding(vit: Any) -> Embedding:
    patch = vit.patch_embed
    if type(patch) is not PatchEmbed or patch.dynamic_img_pad or not patch.flatten or patch.img_size is None:
        raise NotTakenApart(f"its patch embedding, {type(patch).__name__}, is not the plain one of fixed size")
    names = () if family_of(vit).class_attention else ("cls_token", "dist_token", "reg_token")
    present = [token for token in (getattr(vit, name, None) for name in names) if token is not None]
    prefix = torch.cat(present, dim=1) if present else None
    position = vit.pos_embed
    own = 0 if position is None else position.shape[1] - patch.num_patches  # DeiT-III: patches alone have positions
    if own:
        prefix, position = prefix + position[:, :own], position[:, own:]
    embedding = Embedding(patch.proj, prefix, position)
    embedding.patch_norm, embedding.norm = patch.norm, getattr(vit, "norm_pre", nn.Identity())
    return embedding


def _rotations(vit: Any) -> list[Rotation | None]:
    """Return rotary positions for each block, as timm's EVA hands them out."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return [None] * len(vit.blocks)
    angles = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=vit.patch_embed.grid_size)
    own = list(angles) if getattr(vit, "rope_mixed", False) else [angles] * len(vit.blocks)
    inner = [block.block if type(block) is WideBlock else block for block in vit.blocks]
    return [_rotation(each, block.attn) for each, block in zip(own, inner, strict=True)]


def _rotation(angles: Tensor, attention: Any) -> Rotation:
    return Rotation(angles, int(attention.num_prefix_tokens), bool(getattr(attention, "rotate_half", False)))


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
    if type(block.attn) not in _ATTENTIONS or getattr(block.attn, "num_kv_groups", 1) != 1:
        raise NotTakenApart(f"the attention {type(block.attn).__name__} is not known here")
    for index, last in ((1, block.attn.proj), (2, block.mlp.fc2)):
        scale_D = _layer_scale(block, index)
        if scale_D is not None:
            last.weight.mul_(scale_D[:, None])
            if last.bias is not None:
                last.bias.mul_(scale_D)
    lowered = Block(block.norm1, _attention(block.attn, rotation, bias), block.norm2, block.mlp)
    lowered.enter = enter
    if type(block) is cait.LayerScaleBlockClassAttn:
        lowered.span = Span(0, 1)
    return lowered


def _layer_scale(block: Any, index: int) -> Tensor | None:
    module: Any = getattr(block, f"ls{index}", None)
    if type(module) is not LayerScale and module is not None and not isinstance(module, nn.Identity):
        raise NotTakenApart(f"the scale {type(module).__name__} is not known here")
    scale: Tensor | None = module.gamma if type(module) is LayerScale else getattr(block, f"gamma_{index}", None)
    return scale


def _attention(attn: Any, rotation: Rotation | None, shared_bias: Tensor | None) -> Attention:
    query, key, value = _projections(attn)
    lowered = Attention(query, key, value, attn.proj, int(attn.num_heads), float(attn.scale))
    for name, own in (("query_norm", "q_norm"), ("key_norm", "k_norm"), ("inner_norm", "norm")):
        setattr(lowered, name, getattr(attn, own, nn.Identity()))
    lowered.gate = getattr(attn, "gate", None)
    lowered.rotation = rotation
    if type(attn) is cait.TalkingHeadAttn:
        lowered.mix_scores, lowered.mix_weights = LeftMix(attn.proj_l.weight), LeftMix(attn.proj_w.weight)
        lowered.sum_bias_H11 = nn.Parameter(attn.proj_w.bias.detach()[:, None, None].clone())
    if getattr(attn, "relative_position_bias_table", None) is not None:
        own_bias = attn._get_rel_pos_bias()
        shared_bias = own_bias if shared_bias is None else own_bias + shared_bias
    lowered.bias_1HTT = None if shared_bias is None else shared_bias.detach().clone()
    _fold_scale_and_biases(lowered)
    return lowered


def _fold_scale_and_biases(attention: Attention) -> None:
    norm = attention.query_norm
    scaled = attention.query if isinstance(norm, nn.Identity) else norm
    if scaled is attention.query or (isinstance(norm, nn.LayerNorm) and norm.weight is not None):
        for parameter in scaled.parameters():
            parameter.mul_(attention.scale)
        attention.scale = 1.0
    if attention.rotation is None and isinstance(attention.key_norm, nn.Identity):
        attention.key.register_parameter("bias", None)
    plain = attention.gate is None and attention.mix_weights is None and isinstance(attention.inner_norm, nn.Identity)
    if plain and attention.value.bias is not None and attention.project.bias is not None:
        attention.project.bias.add_(attention.project.weight @ attention.value.bias)
        attention.value.register_parameter("bias", None)


def _projections(attn: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Return query, key and value maps of their own, however the family keeps them."""
    if type(attn) is cait.ClassAttn:
        return attn.q, attn.k, attn.v
    if attn.qkv is None:
        return attn.q_proj, attn.k_proj, attn.v_proj
    biases: Any = (None, None, None)
    if attn.qkv.bias is not None:
        biases = attn.qkv.bias.chunk(3)
    elif getattr(attn, "q_bias", None) is not None:  # BEiT and EVA: the key's is a buffer of zeros
        biases = (attn.q_bias, attn.k_bias if bool(attn.k_bias.any()) else None, attn.v_bias)
    query, key, value = (_linear(*both) for both in zip(attn.qkv.weight.chunk(3), biases, strict=True))
    return query, key, value


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer of its own from these numbers, in their dtype."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype, device=weight.device)
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(bias)
    return made


def _readout(module: nn.Module, vit: Any) -> Readout:
    prefix = len(family_of(vit).prefix_tokens(vit))
    if isinstance(module, LiftStudent):
        return MeanReadout(nn.Sequential(module.projector, module.norm), nn.Identity(), module.head, prefix)
    if isinstance(module, FoldedLift):
        return MeanReadout(RootNorm(module.root, module.eps), nn.Identity(), module.head, prefix)
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
