"""8-bit pixels as loaders hand them over, and normalising them where the network is (``augment.normalize_on``)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from vitcompress.core.preprocess import PreprocessSpec


def normalized(spec: PreprocessSpec, images: Tensor) -> Tensor:
    """Return what a network takes, float32 ``[B, C, S, S]``, on the device of ``images``.

    ``images`` are uint8 ``[B, S, S, C]``; floats are taken for normalised, and returned. The bits are those that
    ``PreprocessSpec.prepared`` looks up: the same three operations, each rounded once.
    """
    if images.dtype != torch.uint8:
        return images
    mean, std = _statistics(spec.mean, spec.std, images.device)
    floats = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(255).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _statistics(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return both as ``[C, 1, 1]``: copied to a device once, and without waiting for what it has to do."""
    ours = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    return next(ours).to(device, non_blocking=True), next(ours).to(device, non_blocking=True)


class PixelErasing:
    """timm's random erasing of 8-bit pixels: the same rectangle and noise, the noise rounded and cut off to pixels."""

    def __init__(self, erasing: RandomErasing, spec: PreprocessSpec) -> None:
        self.erasing, self.spec = erasing, spec

    def __call__(self, pixels: Tensor) -> Tensor:
        """Erase in uint8 ``[S, S, C]``, in place; return it."""
        self.erasing(_Erased(pixels, self.spec))
        return pixels


class _Erased:
    """As much of a normalised float image ``[C, S, S]`` as timm's erasing touches, over 8-bit pixels."""

    dtype = torch.float32

    def __init__(self, pixels: Tensor, spec: PreprocessSpec) -> None:
        self.pixels, self.spec = pixels, spec

    def size(self) -> tuple[int, int, int]:
        rows, columns, channels = self.pixels.shape
        return channels, rows, columns

    def __setitem__(self, where: Any, noise: Tensor) -> None:
        mean, std = _statistics(self.spec.mean, self.spec.std, noise.device)
        levels = (noise * std + mean).mul_(255).round_().clamp_(0, 255)
        self.pixels[where[1:]] = levels.permute(1, 2, 0).to(torch.uint8)
