"""The patch embedding as one matrix product, from normalised images or straight from pixels.

A convolution whose stride is its kernel size p, without padding, sees each patch once, so it is ``W vec(patch) + b``
with W ``[D, 3 p p]``: images are cut by one reshape and one transposition. From pixels x (0 to 255) the network was
trained on ``(x / 255 - m_c) / s_c`` in channel c, and since no padding mixes in zeros,

    W ((x / 255 - m) / s) + b = (W / (255 s)) x + (b - sum W m / s)

Shape suffixes: B batch, S side, p patch side, g patches along a side, P = g g, C = 3, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from core.preprocess import PreprocessSpec
from stages.rewrites.parts import ConvPatches, Network
from stages.rewrites.rewritten import Rewritten, copy_of
from stages.rewrites.tokens import Tokens


class LinearPatches(nn.Module):
    """Images float32 ``[B, 3, S, S]``, or pixels uint8 ``[B, S, S, 3]``, to patch tokens."""

    def __init__(self, linear: nn.Linear, patch: tuple[int, int], pixels: bool) -> None:
        super().__init__()
        self.linear, self.patch, self.pixels = linear, patch, pixels

    def forward(self, images: Tensor, first: bool) -> Tokens:
        """Patch tokens, tokens first or not."""
        p, q = self.patch
        if self.pixels:
            high, wide = images.shape[1] // p, images.shape[2] // q
            images = images.to(self.linear.weight.dtype)
            cut = images.reshape(-1, high, p, wide, q * 3)
            order = (1, 3, 0, 2, 4) if first else (0, 1, 3, 2, 4)
        else:
            high, wide = images.shape[2] // p, images.shape[3] // q
            cut = images.reshape(-1, 3, high, p, wide, q)
            order = (2, 4, 0, 1, 3, 5) if first else (0, 2, 4, 1, 3, 5)
        count, size = high * wide, 3 * p * q
        rows = cut.permute(order)
        if first:
            return Tokens(self.linear(rows.reshape(-1, size)), count, first=True)
        return Tokens.of(self.linear(rows.reshape(-1, count, size)))


def product_of_patches(network: Network) -> Rewritten:
    """The convolution of the patch embedding as a matrix product, for normalised images."""
    return _rewrite(network, None, "patch embedding as one matrix product")


def normalise_in_patches(network: Network, preprocess: PreprocessSpec) -> Rewritten:
    """The same from pixels, their normalisation in its weights."""
    return _rewrite(network, preprocess, "normalisation of the pixels in the patch embedding")


def _rewrite(network: Network, preprocess: PreprocessSpec | None, words: str) -> Rewritten:
    patches = network.embedding.patches
    refused = why_not_linear(patches.convolution) if isinstance(patches, ConvPatches) else "is a product already"
    if refused:
        return Rewritten(network, False, f"patch embedding: it {refused}")
    network = copy_of(network)
    network.embedding.patches = linear_patches(patches.convolution, preprocess)
    return Rewritten(network, True, words)


def why_not_linear(convolution: nn.Conv2d) -> str:
    """Why a convolution does not see each pixel of whole patches once; empty when it does."""
    if tuple(convolution.stride) != tuple(convolution.kernel_size):
        return "overlaps (its stride is not its kernel size)"
    plain = convolution.groups == 1 and convolution.in_channels == 3 and set(convolution.dilation) == {1}
    if not plain or convolution.padding not in ((0, 0), "valid"):
        return "is padded, dilated, grouped, or not of three channels"
    return ""


@torch.no_grad()
def linear_patches(convolution: nn.Conv2d, preprocess: PreprocessSpec | None) -> LinearPatches:
    """A convolution that ``why_not_linear`` accepts as a product; with ``preprocess`` from its pixels."""
    weight_DCpp = convolution.weight.detach()
    width = weight_DCpp.shape[0]
    bias_D = torch.zeros_like(weight_DCpp[:, 0, 0, 0]) if convolution.bias is None else convolution.bias.detach()
    has_bias = convolution.bias is not None or preprocess is not None
    if preprocess is not None:
        mean_C, std_C = (weight_DCpp.new_tensor(values) for values in (preprocess.mean, preprocess.std))
        weight_DCpp = weight_DCpp / std_C[:, None, None]
        bias_D = bias_D - (weight_DCpp * mean_C[:, None, None]).sum(dim=(1, 2, 3))
        weight_DCpp = (weight_DCpp / 255).permute(0, 2, 3, 1)  # pixels keep their channels last
    made = nn.Linear(weight_DCpp[0].numel(), width, bias=has_bias, dtype=weight_DCpp.dtype)
    made.weight.copy_(weight_DCpp.reshape(width, -1))
    if has_bias:
        made.bias.copy_(bias_D)
    kernel: Any = convolution.kernel_size
    return LinearPatches(made, (int(kernel[0]), int(kernel[1])), pixels=preprocess is not None)


class PixelInput(nn.Module):
    """A network behind the normalisation it was trained with: pixels uint8 ``[B, S, S, 3]`` to logits."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, network: nn.Module, preprocess: PreprocessSpec) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean_C11", preprocess.mean), ("std_C11", preprocess.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64).float()[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``[B, K]``."""
        images = pixels.permute(0, 3, 1, 2).to(self.mean_C11.dtype) / 255
        logits: Tensor = self.network((images - self.mean_C11) / self.std_C11)
        return logits
