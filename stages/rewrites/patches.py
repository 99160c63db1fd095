"""Networks that take pixels, uint8 ``[B, S, S, C]``, instead of normalised images ``[B, C, S, S]``.

Of pixels x from 0 to 255 the network has seen ``(x / 255 - m_c) / s_c`` in channel c. Where its first layer is a
convolution ``W * x + b`` without padding, which would mix in zeros, the normalisation goes into its weights:

    W * ((x / 255 - m) / s) + b = (W / (255 s)) * x + (b - sum W m / s)

Shape suffixes: C channels, D width, p side of the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec


@torch.no_grad()
def fold_normalisation(convolution: nn.Conv2d, preprocess: PreprocessSpec) -> bool:
    """Make a convolution take pixels from 0 to 255, in place, if it is not padded; return whether it does."""
    if convolution.padding not in ((0, 0), "valid") or convolution.groups != 1:
        return False
    mean_C, std_C = (convolution.weight.new_tensor(values) for values in (preprocess.mean, preprocess.std))
    convolution.weight.div_(std_C[:, None, None])
    shift_D = (convolution.weight * mean_C[:, None, None]).sum(dim=(1, 2, 3))
    convolution.weight.div_(255)
    convolution.bias = nn.Parameter(-shift_D if convolution.bias is None else convolution.bias - shift_D)
    return True


class PixelInput(nn.Module):
    """A network behind what makes images of pixels uint8 ``[B, S, S, C]``; made in float64.

    ``preprocess`` is the normalisation that images need; None where ``network`` takes pixels from 0 to 255.
    """

    mean_C11: Tensor  # noqa: N815 - shape suffixes
    std_C11: Tensor  # noqa: N815

    def __init__(self, network: nn.Module, preprocess: PreprocessSpec | None) -> None:
        super().__init__()
        self.network = network
        mean, std = ((0.0,), (1.0,)) if preprocess is None else (preprocess.mean, preprocess.std)
        for name, values in (("mean_C11", mean), ("std_C11", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64)[:, None, None])
        self.normalises = preprocess is not None

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``[B, K]``."""
        images = pixels.to(self.std_C11.dtype).permute(0, 3, 1, 2)  # TensorRT permutes no uint8
        if self.normalises:
            images = (images / 255 - self.mean_C11) / self.std_C11
        logits: Tensor = self.network(images)
        return logits
