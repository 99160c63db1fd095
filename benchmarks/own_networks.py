"""Networks that a user wrote, for `networks.py`: `--teacher own_networks:teacher`."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class Pooled(nn.Module):
    """Convolutions, the mean of the last map, a classifier."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        widths = (3, width, 2 * width)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(one, other, 3, stride=2, padding=1), nn.BatchNorm2d(other), nn.ReLU())
                for one, other in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, 3, S, S]`` to logits ``[B, K]``."""
        logits: Tensor = self.head(self.body(images).mean(dim=(2, 3)))
        return logits


def teacher(num_classes: int = 1000) -> nn.Module:
    """A wide one."""
    return Pooled(32, num_classes)


def student(num_classes: int = 1000) -> nn.Module:
    """A narrow one."""
    return Pooled(12, num_classes)
