"""The patch embedding straight from pixels: their normalisation in its weights, and one matrix product.

A convolution whose stride is its kernel size p, without padding, sees each patch once, so it is ``W vec(patch) + b``
with W ``[D, 3 p p]``: images are cut by one reshape and one transposition. (From normalised images in planes that is
as fast as the convolution, docs/performance-export.md, so those keep it.) Of pixels x from 0 to 255 the network has
seen ``(x / 255 - m_c) / s_c`` in channel c, and since no padding mixes in zeros,

    W ((x / 255 - m) / s) + b = (W / (255 s)) x + (b - sum W m / s)

Shape suffixes: B batch, S side, p patch side, g patches along a side, P = g g, C = 3, D width.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.rewrites.exact import Rewritten
from vitcompress.stages.rewrites.lower import linear
from vitcompress.stages.rewrites.parts import Network
from vitcompress.stages.rewrites.tokens import Tokens


class LinearPatches(nn.Module):
    """Pixels uint8 ``[B, S, S, 3]`` to patch tokens."""

    def __init__(self, linear: nn.Linear, patch: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.patch = linear, patch

    @property
    def linear_map(self) -> nn.Linear:
        """Return what has the weights and the bias."""
        return self.linear

    def forward(self, pixels: Tensor, first: bool) -> Tokens:
        """Return patch tokens, tokens first or not."""
        p, q = self.patch
        high, wide = pixels.shape[1] // p, pixels.shape[2] // q
        count, size = high * wide, 3 * p * q
        cut = pixels.to(self.linear.weight.dtype).reshape(-1, high, p, wide, q * 3)
        if first:
            rows = cut.permute(1, 3, 0, 2, 4).reshape(-1, size)
            return Tokens(self.linear(rows), count, first=True)
        return Tokens.of(self.linear(cut.permute(0, 1, 3, 2, 4).reshape(-1, count, size)))


class GridPatches(nn.Module):
    """Pixels to patches in their grid, ``[B, H, W, D]``, as networks of stages take them."""

    def __init__(self, patches: LinearPatches, norm: nn.Module) -> None:
        super().__init__()
        self.patches, self.norm = patches, norm

    def forward(self, pixels: Tensor) -> Tensor:
        """Make patches of pixels."""
        x_BPD = self.patches(pixels, first=False).x
        grid = (pixels.shape[1] // self.patches.patch[0], pixels.shape[2] // self.patches.patch[1])
        normed: Tensor = self.norm(x_BPD.unflatten(1, grid))
        return normed


def normalise_in_patches(network: Network, preprocess: PreprocessSpec) -> Rewritten:
    """Make the network take pixels, their normalisation in its patch embedding."""
    convolution = network.embedding.patches.convolution
    refused = why_not_linear(convolution, preprocess.size)
    if refused:
        return Rewritten(network, False, f"patch embedding: it {refused}")
    network = deepcopy(network)
    network.embedding.patches = linear_patches(convolution, preprocess)
    return Rewritten(network, True, "normalisation of the pixels in the patch embedding")


def normalise_in_grid(module: nn.Module, preprocess: PreprocessSpec) -> Rewritten:
    """Make a network take pixels, if its ``patch_embed`` is timm's and keeps the grid, as Swin's does."""
    patch: Any = module.patch_embed
    known = type(patch) is PatchEmbed and not patch.dynamic_img_pad and not patch.flatten
    refused = (
        why_not_linear(patch.proj, preprocess.size) if known else f"is {type(patch).__name__} of a kind not known here"
    )
    if refused:
        return Rewritten(module, False, f"patch embedding: it {refused}")
    swin: Any = deepcopy(module)
    swin.patch_embed = GridPatches(linear_patches(patch.proj, preprocess), swin.patch_embed.norm)
    return Rewritten(swin, True, "normalisation of the pixels in the patch embedding")


def why_not_linear(convolution: nn.Conv2d, size: int) -> str:
    """Return why a convolution does not see each pixel of whole patches once; empty when it does."""
    if tuple(convolution.stride) != tuple(convolution.kernel_size):
        return "overlaps (its stride is not its kernel size)"
    plain = convolution.groups == 1 and convolution.in_channels == 3 and set(convolution.dilation) == {1}
    if not plain or convolution.padding not in ((0, 0), "valid"):
        return "is padded, dilated, grouped, or not of three channels"
    if any(size % side for side in convolution.kernel_size):
        return f"leaves a border out ({size} pixels are not whole patches)"
    return ""


@torch.no_grad()
def linear_patches(convolution: nn.Conv2d, preprocess: PreprocessSpec) -> LinearPatches:
    """Return a convolution that ``why_not_linear`` accepts, as a product of pixels."""
    weight_DCpp = convolution.weight.detach()
    width = weight_DCpp.shape[0]
    bias_D = weight_DCpp.new_zeros(width) if convolution.bias is None else convolution.bias.detach()
    mean_C, std_C = (weight_DCpp.new_tensor(values) for values in (preprocess.mean, preprocess.std))
    weight_DCpp = weight_DCpp / std_C[:, None, None]
    bias_D = bias_D - (weight_DCpp * mean_C[:, None, None]).sum(dim=(1, 2, 3))
    weight_DX = (weight_DCpp / 255).permute(0, 2, 3, 1).reshape(width, -1)  # pixels keep their channels last
    high, wide = convolution.kernel_size
    return LinearPatches(linear(weight_DX, bias_D), (high, wide))


class PixelInput(nn.Module):
    """A network behind the normalisation it was trained with, from pixels uint8 ``[B, S, S, 3]``; made in float64."""

    mean_C11: Tensor  # noqa: N815 - shape suffixes
    std_C11: Tensor  # noqa: N815

    def __init__(self, network: nn.Module, preprocess: PreprocessSpec) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean_C11", preprocess.mean), ("std_C11", preprocess.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``[B, K]``."""
        images = pixels.permute(0, 3, 1, 2).to(self.mean_C11.dtype) / 255
        logits: Tensor = self.network((images - self.mean_C11) / self.std_C11)
        return logits
