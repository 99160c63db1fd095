"""Pixels as most runtimes of images hand them over: planes of numbers, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def planes(module: nn.Module) -> nn.Module:
    """Return a network of pixels, uint8 ``[B, S, S, C]``, that takes them as float32 ``[B, C, S, S]``, 0 to 255."""
    from torch import Tensor, nn

    class Planes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, pixels: Tensor) -> Tensor:
            logits: Tensor = self.network(pixels.permute(0, 2, 3, 1))
            return logits

    return Planes().eval()
