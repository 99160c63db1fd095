"""What of the rewrites applies to Swin: its classifier reads the mean of the last stage, and it has no class token.

The scale of window attention goes into the queries' weights, as in ``stages.rewrites.attention``, and the pixels'
normalisation into the patch embedding, as in ``stages.rewrites.patches``; proofs there.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.rewrites.patches import LinearPatches, linear_patches, why_not_linear
from vitcompress.stages.rewrites.rewritten import Rewritten


class GridPatches(nn.Module):
    """Pixels to patches in their grid, ``[B, H, W, D]``, as Swin's stages take them."""

    def __init__(self, patches: LinearPatches, norm: nn.Module) -> None:
        super().__init__()
        self.patches, self.norm = patches, norm

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches."""
        x_BPD = self.patches(pixels, first=False).x
        grid = (pixels.shape[1] // self.patches.patch[0], pixels.shape[2] // self.patches.patch[1])
        normed: Tensor = self.norm(x_BPD.unflatten(1, grid))
        return normed


def is_swin(module: nn.Module) -> bool:
    """Whether this is a network the rewrites here are for."""
    return type(module) is SwinTransformer


@torch.no_grad()
def fold_window_scale(module: nn.Module) -> Rewritten:
    """Window attention's scale in the weights of its queries."""
    module = deepcopy(module)
    parts: list[Any] = list(module.modules())
    for part in parts:
        if type(part) is WindowAttention:
            width = part.qkv.out_features // 3
            for parameter in part.qkv.parameters():
                parameter[:width].mul_(part.scale)
            part.scale = 1.0
    return Rewritten(module, True, "attention's scale in its weights")


def normalise_in_grid(module: nn.Module, preprocess: PreprocessSpec) -> Rewritten:
    """Swin from pixels, their normalisation in its patch embedding."""
    patch: Any = module.patch_embed
    known = type(patch) is PatchEmbed and not patch.dynamic_img_pad and not patch.flatten
    refused = (
        why_not_linear(patch.proj, preprocess.size) if known else f"is {type(patch).__name__} of a kind not known here"
    )
    if refused:
        return Rewritten(module, False, f"patch embedding: it {refused}")
    module = deepcopy(module)
    swin: Any = module
    swin.patch_embed = GridPatches(linear_patches(patch.proj, preprocess), swin.patch_embed.norm)
    return Rewritten(module, True, "normalisation of the pixels in the patch embedding")
