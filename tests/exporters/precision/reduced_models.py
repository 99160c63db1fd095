"""Networks with a known weak spot, and one that was trained, as fp32 graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from tiny_models import SIZE, tiny_vit
from torch import nn

from vitcompress.core.artifact_records import Precision
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.precision.compare import Limits
from vitcompress.exporters.precision.reduce import ReducedFacts, reduced_from_onnx

LOOSE = Limits(difference=0.2, agreement=0.9)


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All digits, shuffled, as float32 ``[1797, 3, 32, 32]`` in [-1, 1], and their classes."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    large = data.images[order].astype(np.float32).repeat(4, axis=1).repeat(4, axis=2) / 8 - 1
    return np.ascontiguousarray(large[:, None].repeat(3, axis=1)), data.target[order]


def export(module: nn.Module, path: Path) -> Path:
    onnx_from_module(module, path, size=SIZE, max_batch=8)
    return path


def reduce(source: Path, precision: Precision, images: NDArray[Any], limits: Limits = LOOSE) -> ReducedFacts:
    """Reduce ``source`` to ``FOLDER/PRECISION.onnx``: half of the images calibrate, the other half check."""
    half = len(images) // 2
    target = source.with_name(f"{precision}.onnx")
    return reduced_from_onnx(source, target, precision, calibration=images[:half], checked=images[half:], limits=limits)


def distinct(depth: int) -> nn.Module:
    """A ViT without two equal parameters, as trained ones are: slimming makes equal ones one, with one name."""
    model = tiny_vit(depth=depth).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.01 * torch.randn_like(parameter)
    return model


def with_huge_mlp(block: int, depth: int = 4) -> nn.Module:
    """A ViT whose MLP in one block works with values around 100,000: no trouble in fp32, beyond fp16's 65504."""
    model = distinct(depth)
    mlp = model.blocks[block].mlp  # type: ignore[union-attr,index]  # timm's, which types do not know
    with torch.no_grad():
        mlp.fc1.weight *= 3e4  # type: ignore[union-attr,operator]
        mlp.fc1.bias *= 3e4  # type: ignore[union-attr,operator]
        mlp.fc2.weight /= 3e4  # type: ignore[union-attr,operator]
    return model


def with_outlier_channel(block: int, depth: int = 4) -> nn.Module:
    """A ViT with one channel 3,000 times the others between a norm and its MLP, where the weights undo it: exact in
    fp32, but in int8 the others round to 0.
    """
    model = distinct(depth)
    part = model.blocks[block]  # type: ignore[operator,index]
    with torch.no_grad():
        part.norm2.weight[5] *= 3000
        part.norm2.bias[5] *= 3000
        part.mlp.fc1.weight[:, 5] /= 3000
    return model


def trained() -> nn.Module:
    """A ViT of two blocks that tells most digits apart after some seconds of training on the first 1,400."""
    torch.manual_seed(0)
    model = tiny_vit(depth=2)
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.05)
    images, classes = digits()
    x, y = torch.from_numpy(images[:1400]), torch.from_numpy(classes[:1400])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(12):
        for index in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    return model.eval()
