"""Models small enough to export in a second."""

from __future__ import annotations

from typing import Any

import timm
import torch

SIZE = 32
LABELS = tuple(f"digit {number}" for number in range(10))


def tiny_vit(seed: int = 0, **args: Any) -> torch.nn.Module:
    """Two blocks of width 48, with random weights large enough that different images get different labels."""
    torch.manual_seed(seed)
    shape = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 10}
    model = timm.create_model("deit_tiny_patch16_224", **{**shape, **args})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
        model.head.bias.normal_()  # zeros would be optimised away
    return model
