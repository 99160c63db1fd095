"""CaiT: the class token joins after the blocks of patch tokens, in two class-attention blocks of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from vitcompress.stages.models.families.family import Family


class Cait(Family):
    """Class-attention in image transformers (Touvron et al. 2021), whose taps are patch tokens alone."""

    networks = ("timm.models.cait.Cait",)
    parts = True
    class_attention = True

    def cut_to_tokens(self, network: nn.Module) -> None:
        """Remove the class-attention blocks and their token too."""
        super().cut_to_tokens(network)
        network.blocks_token_only = nn.ModuleList()
        del network.cls_token

    def take_end(self, narrow: nn.Module, wide: nn.Module, width: int) -> None:
        """Take the class attention too: it reads the widened tokens."""
        super().take_end(narrow, wide, width)
        end: Any = wide
        narrow.blocks_token_only, narrow.cls_token = end.blocks_token_only, end.cls_token

    def prefix_tokens(self, network: nn.Module) -> tuple[str, ...]:
        """Return nothing: the tapped blocks see patches alone."""
        return ()
