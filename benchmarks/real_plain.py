"""The plain loop that `real.py` compares with: what a user would write with timm in 30 lines.

AdamW, one cycle, bfloat16 autocast, resized images with random flips; layer decay where weights are pretrained.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.data import ImageDataset, create_transform, resolve_data_config
from timm.models.vision_transformer import checkpoint_filter_fn
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Plain:
    """What a plain training came to."""

    top1: float
    """Percent of the held-out images."""
    seconds: float
    """Of training, evaluation left out."""
    steps: int


def plain(
    model: Any, data: Path, *, epochs: int, batch: int, lr: float, seed: int, layer_decay: float | None = None
) -> Plain:
    """Train a timm model on ``data/train`` with the labels alone; judge its last weights on ``data/val``."""
    torch.manual_seed(seed)
    config = resolve_data_config(model=model, use_test_size=True)
    config["input_size"] = (3, *model.patch_embed.img_size)
    train = ImageDataset(str(data / "train"), transform=_flips(config))
    val = ImageDataset(str(data / "val"), transform=create_transform(**config))
    loader = DataLoader(train, batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    steps = epochs * len(loader)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=0.05, layer_decay=layer_decay)
    rates = [lr * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    began = time.monotonic()
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds = time.monotonic() - began
    return Plain(_top1(model, val), seconds, steps)


def _flips(config: dict[str, Any]) -> Any:
    """The evaluation's resizing, and random flips."""
    return create_transform(**config, is_training=True, scale=(1.0, 1.0), ratio=(1.0, 1.0), color_jitter=None)


def _top1(model: Any, val: Any) -> float:
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        right = [(model(images).argmax(1) == labels).float() for images, labels in DataLoader(val, 100, num_workers=2)]
    return 100 * float(torch.cat(right).mean())


def teacher(weights: Path, size: int, classes: int) -> Any:
    """The ViT-S/14 with its real weights at another size, and a new classifier."""
    model = timm.create_model("vit_small_patch14_dinov2", img_size=size, num_classes=classes)
    model.load_state_dict(checkpoint_filter_fn(load_file(weights), model), strict=False)
    return model


def student(size: int, classes: int, seed: int) -> Any:
    """DeiT-Tiny with random weights."""
    torch.manual_seed(seed)
    return timm.create_model("deit_tiny_patch16_224", img_size=size, num_classes=classes)
