"""Swin: stages of different width, tapped after each."""

from __future__ import annotations

from vitcompress.stages.models.families.family import Family


class Swin(Family):
    """Hierarchical transformers with windows, whose classifier reads the mean of the last stage."""

    networks = ("timm.models.swin_transformer.SwinTransformer",)
    listed = ("swin_transformer",)
    rewrites = ("window_attention", "grid_normalisation")
