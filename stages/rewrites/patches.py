"""The patch embedding straight from pixels: their normalisation in its weights, and one matrix product.

A convolution whose stride is its kernel size p, without padding, sees each patch once, so it is ``W vec(patch) + b``
with W ``[D, 3 p p]``: images are cut by one reshape and one transposition. (From normalised images in planes that is
as fast as the convolution, docs/performance-export.md, so those keep it.) Of pixels x from 0 to 255 the network has
seen ``(x / 255 - m_c) / s_c`` in channel c, and since no padding mixes in zeros,

    W ((x / 255 - m) / s) + b = (W / (255 s)) x + (b - sum W m / s)

Shape suffixes: B batch, S side, p patch side, C = 3, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.rewrites.parts import Network
from vitcompress.stages.rewrites.tokens import Tokens


class LinearPatches(nn.Module):
    """Pixels uint8 ``[B, S, S, 3]`` to patch tokens."""

    def __init__(self, linear: nn.Linear, patch: tuple[int, ...]) -> None:
        super().__init__()
        self.map, self.patch = linear, patch

    def cut(self, pixels: Tensor) -> Tensor:
        """Return pixels by rows of patches, ``[B, S / p, p, S / p, 3 p]``."""
        p, q = self.patch
        high, wide = pixels.shape[1] // p, pixels.shape[2] // q
        return pixels.to(self.map.weight.dtype).reshape(-1, high, p, wide, q * 3)

    def forward(self, pixels: Tensor) -> Tokens:
        """Return patch tokens."""
        cut = self.cut(pixels)
        rows = cut.permute(1, 3, 0, 2, 4).reshape(-1, self.map.in_features)
        return Tokens(self.map(rows), cut.shape[1] * cut.shape[3])


class GridPatches(nn.Module):
    """Pixels to patches in their grid, ``[B, H, W, D]``, as networks of stages take them."""

    def __init__(self, patches: LinearPatches, norm: nn.Module) -> None:
        super().__init__()
        self.patches, self.norm = patches, norm

    def forward(self, pixels: Tensor) -> Tensor:
        """Make patches of pixels."""
        x_BHWD = self.patches.map(self.patches.cut(pixels).permute(0, 1, 3, 2, 4).flatten(3))
        normed: Tensor = self.norm(x_BHWD)
        return normed


def normalise_in_patches(network: Network, preprocess: PreprocessSpec) -> bool:
    """Make the network take pixels, in place, if its patch embedding can; return whether it can."""
    convolution = network.embedding.patches.map
    if not sees_each_pixel_once(convolution, preprocess.size):
        return False
    network.embedding.patches = linear_patches(convolution, preprocess)
    return True


def normalise_in_grid(module: Any, preprocess: PreprocessSpec) -> bool:
    """Make a network take pixels, in place, if its ``patch_embed`` is timm's and keeps the grid, as Swin's does."""
    patch = module.patch_embed
    known = type(patch) is PatchEmbed and not patch.dynamic_img_pad and not patch.flatten
    if not known or not sees_each_pixel_once(patch.proj, preprocess.size):
        return False
    module.patch_embed = GridPatches(linear_patches(patch.proj, preprocess), patch.norm)
    return True


def sees_each_pixel_once(convolution: nn.Conv2d, size: int) -> bool:
    """Return whether a convolution cuts images of ``size`` pixels into whole patches."""
    plain = convolution.groups == 1 and convolution.in_channels == 3 and set(convolution.dilation) == {1}
    kernel = tuple(convolution.kernel_size)
    whole = not any(size % side for side in kernel)
    return plain and whole and tuple(convolution.stride) == kernel and convolution.padding in ((0, 0), "valid")


@torch.no_grad()
def linear_patches(convolution: nn.Conv2d, preprocess: PreprocessSpec) -> LinearPatches:
    """Return a convolution that ``sees_each_pixel_once`` as a product of pixels."""
    weight_DCpp = convolution.weight.detach()
    width = weight_DCpp.shape[0]
    bias_D = weight_DCpp.new_zeros(width) if convolution.bias is None else convolution.bias.detach()
    mean_C, std_C = (weight_DCpp.new_tensor(values) for values in (preprocess.mean, preprocess.std))
    weight_DCpp = weight_DCpp / std_C[:, None, None]
    bias_D = bias_D - (weight_DCpp * mean_C[:, None, None]).sum(dim=(1, 2, 3))
    weight_DX = (weight_DCpp / 255).permute(0, 2, 3, 1).reshape(width, -1)  # pixels keep their channels last
    return LinearPatches(linear(weight_DX, bias_D), tuple(convolution.kernel_size))


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer of its own from these numbers, in their dtype."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


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
