"""A teacher, views of real digits and a cache of them, small enough to fill in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

from vitcompress.core.context import Context
from vitcompress.core.records import CacheSummary, ModelSpec
from vitcompress.stages.distill.cache.chunks import Part
from vitcompress.stages.distill.cache.fill import fill
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.models.build import build_model, logits_and_taps

IMAGES, VIEWS, BATCH = 150, 2, 6
ROWS = IMAGES * VIEWS
CLASSES, WIDTH, GRID = 10, 48, 4
LAYERS = (0, 2)
KEY: dict[str, Any] = {"teacher": "a" * 64, "seed": 0, "views": VIEWS, "augment": {"hflip": 0.5}, "torch": "2.9"}


class DigitViews(Dataset[tuple[Tensor, int]]):
    """Digits as float32 ``[3, 32, 32]``, moved by as many pixels as the view's number says."""

    def __init__(self) -> None:
        digits = load_digits()
        pixels = torch.from_numpy(digits.images[:IMAGES] / 8 - 1).float()
        self.images = pixels.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].expand(-1, 3, -1, -1)
        self.labels = [int(label) for label in digits.target[:IMAGES]]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, key: Any) -> tuple[Tensor, int]:
        return self.images[key.index].roll(key.view, dims=2).clone(), self.labels[key.index]


class TinyTeacher:
    """A random vision transformer; counts the images that it sees."""

    def __init__(self, layers: tuple[int, ...] = LAYERS) -> None:
        arguments = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": 3, "num_heads": 4}
        torch.manual_seed(7)
        spec = ModelSpec(arch="vit_tiny_patch16_224", args=arguments, num_classes=CLASSES)
        self.network: nn.Module = build_model(spec).eval()
        for parameter in self.network.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        self.layers, self.seen = layers, 0

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.seen += len(images)
        return logits_and_taps(self.network, images, self.layers)


def parts(layers: tuple[int, ...] = LAYERS) -> tuple[Part, ...]:
    taps = (Part(name=f"tap-{layer}", shape=(WIDTH, GRID, GRID)) for layer in layers)
    return Part(name="logits", shape=(CLASSES,)), *taps


def store(folder: Path, layers: tuple[int, ...] = LAYERS, key: dict[str, Any] | None = None) -> Store:
    return Store(folder, key or KEY, parts(layers), images=IMAGES, views=VIEWS)


def live(teacher: TinyTeacher) -> dict[str, Tensor]:
    """What the teacher says of every row, float32, uncached."""
    dataset = DigitViews()
    images = torch.stack([dataset.images[row % IMAGES].roll(row // IMAGES, dims=2) for row in range(ROWS)])
    with torch.inference_mode():
        logits, taps = logits_and_taps(teacher.network, images, teacher.layers)
    return {"logits": logits, **{f"tap-{layer}": tap for layer, tap in zip(teacher.layers, taps, strict=True)}}


def files(folder: Path) -> dict[str, bytes]:
    """Contents of every file and record below a cache's folder, by path below its key."""
    return {"/".join(path.parts[-2:]): path.read_bytes() for path in folder.glob("*/*/*.*")}


def filled(cache: Store, context: Context, teacher: Any = None, **options: Any) -> CacheSummary:
    layers = tuple(int(part.name[4:]) for part in cache.parts if part.name != "logits")
    options = {"batch_size": BATCH, "max_gb": 20.0, **options}
    return fill(cache, DigitViews(), teacher or TinyTeacher(layers), context, **options)
