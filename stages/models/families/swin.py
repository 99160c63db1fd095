"""Swin: stages of different width, tapped after each."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.swin_transformer import WindowAttention

from vitcompress.stages.models.families.family import Family


class Swin(Family):
    """Hierarchical transformers with windows, whose classifier reads the mean of the last stage."""

    networks = ("timm.models.swin_transformer.SwinTransformer",)

    @torch.no_grad()
    def rewrite(self, network: Any) -> tuple[str, ...]:
        """Fold the scale of window attention into the weights of its queries."""
        for part in network.modules():
            if type(part) is WindowAttention:
                for parameter in part.qkv.parameters():
                    parameter[: part.qkv.out_features // 3].mul_(part.scale)
                part.scale = 1.0
        return ("attention's scale in its weights",)
