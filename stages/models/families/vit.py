"""ViT, DeiT, BEiT and EVA: equal blocks, whose class token is there from the first of them on."""

from __future__ import annotations

from vitcompress.stages.models.families.family import Family


class Vit(Family):
    """Isotropic vision transformers of timm."""

    networks = (
        "timm.models.vision_transformer.VisionTransformer",
        "timm.models.deit.VisionTransformerDistilled",
        "timm.models.beit.Beit",
        "timm.models.eva.Eva",
    )
    parts = True
