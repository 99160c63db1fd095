"""Networks as transformers' ``save_pretrained`` writes them, as networks of timm; transformers itself is not needed.

What is in ``config.json`` becomes an architecture of timm with arguments, the names of tensors become timm's, and
``preprocessor_config.json`` becomes timm's preprocessing. The numbers in a file stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from vitcompress.core.errors import UsageError

KNOWN: tuple[str, ...] = ("vit", "deit", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit", "swin", "convnext")
KNOWN += ("siglip", "siglip_vision_model")
"""Values of ``model_type`` that are understood."""
_USUAL: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16}
_USUAL |= {"intermediate_size": 3072, "image_size": 224, "num_channels": 3, "hidden_act": "gelu"}
"""What transformers leaves out of a file: its defaults."""
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
_ACTIVATIONS = {"gelu": None, "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic")
"""By Pillow's number."""
_WARPED_FROM = 384
"""Side from which transformers' ConvNeXt processor resizes both sides and crops nothing, pixels."""
_LEFT_OUT = re.compile(r"mask_token|pooler\.dense|relative_position_index|^(text_model|logit_|decoder|lm_head)")
_RENAMED = {
    "swin": r"""
        patch_embeddings\.projection=patch_embed.proj  ^embeddings\.norm=patch_embed.norm  ^embeddings\.=  ^encoder\.=
        attention\.self\.(q|k|v)[a-z]+\.(weight|bias)=attn.\1.\2  attention\.self=attn  ^classifier=head.fc""",
    "convnext": r"""
        ^embeddings\.patch_embeddings=stem.0  ^embeddings\.layernorm=stem.1  ^encoder\.=  \.layers\.=.blocks.
        downsampling_layer=downsample  dwconv=conv_dw  pwconv=mlp.fc  layer_scale_parameter=gamma
        ^layernorm=head.norm  \.layernorm=.norm  ^classifier=head.fc""",
    "": r"""
        position_embedding(s|\.weight)=pos_embed  patch_embeddings?(\.projection)?=patch_embed.proj
        distillation_token=dist_token  register_tokens=reg_token  ^embeddings\.=
        ^encoder\.relative_position_bias=rel_pos_bias  ^(encoder\.)?layers?\.=blocks.
        (attention\.attention|attention|self_attn)\.(q|k|v)(uery|ey|alue|_proj)\.=attn.\2.
        attention\.attention\.relative_position_bias=attn  (self_attn\.out_proj|attention\.o_proj)=attn.proj
        ^head\.probe=attn_pool.latent  ^head\.attention\.out_proj=attn_pool.proj  ^head\.layernorm=attn_pool.norm
        ^head\.attention\.in_proj_=attn_pool.qkv.  ^head\.mlp=attn_pool.mlp  layer_norm(\d)=norm\1
        lambda_(\d)=gamma_\1  layer_scale(\d)\.lambda1=ls\1.gamma  weights_in=fc1  (weights_out|down_proj)=fc2
        gate_proj=fc1_g  ^pooler\.layernorm=fc_norm  ^(cls_)?classifier=head  ^distillation_classifier=head_dist""",
}
"""Patterns in the names of tensors and, after =, what stands for them in timm, in this order; '' is for ViTs."""
_PREFIX = r"^(vit|deit|beit|dinov2|dinov2_with_registers|swin|convnext|vision_model)\.="
_LAYERS = r"""attention\.output\.dense=attn.proj  intermediate\.dense=mlp.fc1  output\.dense=mlp.fc2
    layernorm_before=norm1  layernorm_after=norm2  ^(post_)?layernorm=norm"""


def timm_network(config: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return timm's architecture, its arguments, and what ``config.json`` says of classes, as timm's pretrained_cfg.

    A UsageError, about ``where``, is raised for a network that is not known, or that timm has not in this form.
    """
    kind = config.get("model_type", "")
    if kind not in KNOWN:
        raise UsageError(f"{where} holds a transformers model of type '{kind}'; known are {', '.join(KNOWN)}.")
    own = {**_USUAL, **config, **config.get("vision_config", {})}
    head = next(iter(config.get("architectures") or []), "")
    problems = {
        "num_channels": own["num_channels"] != 3,
        "use_absolute_embeddings": own.get("use_absolute_embeddings"),
        "key_bias": kind == "dinov3_vit" and own.get("key_bias"),
        "hidden_act": own["hidden_act"] not in (*_ACTIVATIONS, "silu" if own.get("use_gated_mlp") else ""),
    }
    for name in (name for name, wrong in problems.items() if wrong):
        raise UsageError(f"{where} holds a {kind} with {name} {own[name]!r}, which is not supported.")
    arch, args = {"swin": _swin, "convnext": _convnext}.get(kind, _vit)(own, head)
    if _ACTIVATIONS.get(own["hidden_act"]):
        args["act_layer"] = _ACTIVATIONS[own["hidden_act"]]
    usual = 1e-5 if kind in ("swin", "dinov3_vit") else 1e-6
    if own.get("layer_norm_eps", usual) != usual:
        args["layer_norm_eps"] = {"head.norm" if kind == "convnext" else "": own["layer_norm_eps"]}
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # two are left out of the file
    names = [labels[str(index)] for index in range(len(labels))]
    if "ForImageClassification" not in head:
        return arch, args, {"num_classes": 0}
    named = not all(name.startswith("LABEL_") for name in names)
    return arch, args, {"num_classes": len(names), **({"label_names": names} if named else {})}


def _swin(own: dict[str, Any], head: str) -> tuple[str, dict[str, Any]]:
    names = ("image_size", "patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "qkv_bias")
    size = {96: "tiny" if max(own["depths"]) < 18 else "small", 192: "large"}.get(own["embed_dim"], "base")
    return f"swin_{size}_patch4_window7_224", {name.replace("image_size", "img_size"): own[name] for name in names}


def _convnext(own: dict[str, Any], head: str) -> tuple[str, dict[str, Any]]:
    widths, scale = own["hidden_sizes"], own.get("layer_scale_init_value", 1e-6) or None
    size = {96: "tiny" if max(own["depths"]) < 27 else "small", 192: "large", 256: "xlarge"}.get(widths[0], "base")
    args = {"depths": own["depths"], "dims": widths, "patch_size": own["patch_size"], "ls_init_value": scale}
    return f"convnext_{size}", args


def _vit(own: dict[str, Any], head: str) -> tuple[str, dict[str, Any]]:
    kind, width, pattern, classifies = own["model_type"], own["hidden_size"], "vit_{}_patch16_224", "Classif" in head
    dinov2, registers = kind.startswith("dinov2"), kind == "dinov2_with_registers"
    hidden = int(width * own.get("mlp_ratio", 4)) if dinov2 else own["intermediate_size"]
    gated = dinov2 and own.get("use_swiglu_ffn")
    hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8) if gated else hidden  # both halves of one map
    args: dict[str, Any] = {"img_size": own["image_size"], "patch_size": own["patch_size"], "embed_dim": width}
    args |= {"depth": own["num_hidden_layers"], "num_heads": own["num_attention_heads"]}
    args["mlp_ratio"] = (
        hidden / width if int(hidden / width * width) == hidden else (hidden + 0.5) / width
    )  # rounded down
    if kind == "vit" or dinov2:
        args["qkv_bias"] = own.get("qkv_bias", True)
    if kind == "deit" and head.endswith("WithTeacher"):
        pattern = "deit_{}_distilled_patch16_224"
    elif kind == "deit":
        args["reg_tokens"] = 1  # its distillation token, which no classifier reads
    elif kind == "beit":
        pattern = "beit_{}_patch16_224"
        args["init_values"] = own.get("layer_scale_init_value", 0.1) or None
        args["global_pool"] = "avg" if own.get("use_mean_pooling", True) else "token"
        args["use_abs_pos_emb"] = own.get("use_absolute_position_embeddings", False)
        args["use_rel_pos_bias"] = own.get("use_relative_position_bias", False)
        args["use_shared_rel_pos_bias"] = own.get("use_shared_relative_position_bias", False)
    elif dinov2:
        pattern = f"vit_{'giant' if gated else '{}'}_patch14_{'reg4_' if registers else ''}dinov2"
        args |= {"init_values": 1.0, **({"class_and_mean": True} if classifies else {})}
        args |= {"reg_tokens": own.get("num_register_tokens", 4)} if registers else {}
    elif kind == "dinov3_vit":
        pattern = "vit_{}_patch16_dinov3"
        args |= {"init_values": 1.0, "global_pool": "token", "num_reg_tokens": own.get("num_register_tokens", 0)}
        args |= {"qkv_bias": own.get("query_bias", True), "rope_temperature": own.get("rope_theta", 100.0)}
        args |= {"swiglu_mlp": True, "swiglu_align_to": 1} if own.get("use_gated_mlp") else {}
    elif kind.startswith("siglip"):
        pattern = "vit_{}_patch16_siglip_224"
        args |= {"act_layer": "gelu_tanh"} if "hidden_act" not in own.get("vision_config", own) else {}
        mean = classifies or not own.get("vision_use_head", True)
        args |= {"global_pool": "avg", "fc_norm": False} if mean else {}
    name = pattern.format(_SIZES.get(width, "base"))
    return name if timm.is_model(name) else pattern.format("base"), args


def preprocessing(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return timm's preprocessing (and ``input_size``) of ``preprocessor_config.json``'s content.

    A UsageError, about ``where``, is raised for images that are prepared as this program does not prepare them.
    """
    size, crop = config.get("size", 224), config.get("crop_size") if config.get("do_center_crop") else None
    size = {"height": size} if isinstance(size, int) else size
    side, both = size.get("height") or size.get("shortest_edge") or 0, "height" in size
    final = side if crop is None else crop if isinstance(crop, int) else crop["height"]
    share = final / side if side else 0
    if "crop_pct" in config:  # of ConvNeXt, whose size is that of the crop
        share, both = (1.0, True) if side >= _WARPED_FROM else (config["crop_pct"], False)
    resample, normal = config.get("resample", 3), config.get("do_normalize", True)
    odd = {
        "do_resize": not config.get("do_resize", True),
        "do_rescale": not config.get("do_rescale", True),
        "rescale_factor": abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-4,
        "size": size.get("width", side) != side or not 0 < share <= 1,
        "resample": resample not in range(len(_RESAMPLING)),
    }
    for name in (name for name, wrong in odd.items() if wrong):
        raise UsageError(
            f"{where} prepares images with {name} {config.get(name)!r} (preprocessor_config.json), which is not "
            "supported: known are square sizes, a centre crop, pixels divided by 255, and Pillow's filters 0 to 3."
        )
    return {
        "input_size": [3, final, final],
        "crop_pct": share,
        "crop_mode": "squash" if both else "center",
        "interpolation": _RESAMPLING[resample],
        "mean": config.get("image_mean", [0.5] * 3) if normal else [0.0] * 3,
        "std": config.get("image_std", [0.5] * 3) if normal else [1.0] * 3,
    }


def timm_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors by timm's names; ``config`` is the content of the ``config.json`` beside them."""
    kind = config["model_type"]
    patterns = f"{_PREFIX} {_RENAMED.get(kind, _RENAMED[''])} {_LAYERS}".split()
    patterns += ["up_proj=fc1_x" if config.get("use_gated_mlp") else "up_proj=fc1"]
    patterns += [r"ls(\d)\.gamma=gamma_\1"] if kind == "dinov3_vit" else []
    patterns += ["^dist_token=reg_token"] if not any("distillation_classifier" in name for name in state) else []
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.numel() and not _LEFT_OUT.search(name):
            for each in patterns:
                pattern, _, replacement = each.partition("=")
                name = re.sub(pattern, replacement, name)
            found[name] = value
    if kind == "swin":  # timm merges patches at the start of a stage
        after = re.compile(r"^layers\.(\d+)(?=\.downsample)")
        found = {after.sub(lambda at: f"layers.{int(at[1]) + 1}", name): value for name, value in found.items()}
    if kind.startswith("siglip"):
        found["pos_embed"] = found["pos_embed"].reshape(1, -1, found["pos_embed"].shape[-1])
        for part in ("weight", "bias") if "attn_pool.latent" in found else ():
            query, *rest = found.pop(f"attn_pool.qkv.{part}").chunk(3)
            found |= {f"attn_pool.q.{part}": query, f"attn_pool.kv.{part}": torch.cat(rest)}
    if kind == "dinov2_with_registers":  # timm adds positions to patches alone
        found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
        found["pos_embed"] = found["pos_embed"][:, 1:]
    if kind == "siglip" and "head.weight" in found:  # its classifier reads the mean
        found = {name: value for name, value in found.items() if not name.startswith("attn_pool.")}
    return _fused(found, apart=kind in ("beit", "dinov3_vit"))


def _fused(state: dict[str, Tensor], *, apart: bool) -> dict[str, Tensor]:
    """Join queries, keys and values to timm's ``qkv``; ``apart``: biases stay apart, and keys have none."""
    found = {name: value for name, value in state.items() if not re.search(r"attn\.[qkv]\.", name)}
    for name in [name for name in state if name.endswith("attn.q.weight")]:
        attention = name.removesuffix("q.weight")
        found[f"{attention}qkv.weight"] = torch.cat([state[f"{attention}{each}.weight"] for each in "qkv"])
        given = {each: state[key] for each in "qkv" if (key := f"{attention}{each}.bias") in state}
        biases = {each: given.get(each, torch.zeros(len(state[name]), dtype=state[name].dtype)) for each in "qkv"}
        if given and apart:
            found |= {f"{attention}{each}_bias": biases[each] for each in "qv"}
        elif given:
            found[f"{attention}qkv.bias"] = torch.cat(list(biases.values()))
    return found
