"""ViT, DeiT, BEiT and EVA: equal blocks, whose class token is there from the first of them on."""

from __future__ import annotations

from vitcompress.stages.models.families.family import Family

OF_PARTS = ("layer_scale", "attention", "class_token", "absorb", "normalisation", "constants", "tokens_first")
"""Rewrites of networks that ``stages.rewrites.lower`` takes apart, in their order."""


class Vit(Family):
    """Isotropic vision transformers of timm."""

    networks = (
        "timm.models.vision_transformer.VisionTransformer",
        "timm.models.deit.VisionTransformerDistilled",
        "timm.models.beit.Beit",
        "timm.models.eva.Eva",
    )
    listed = ("beit", "deit", "eva", "vision_transformer")
    rewrites = OF_PARTS
    parts = True
