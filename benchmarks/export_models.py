"""The networks of the export matrix: at full size with random weights, or at the reduced geometry, trained on digits.

Random weights show sizes, times and rounding, but their logits nearly tie, so that whether a precision keeps the top-1
of them says nothing. What is trained here in seconds is small, and does tell its classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import Graph, ModelSpec
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.images.sources.digits import digit_image
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import REDUCED_SIZE, reduced_args
from vitcompress.stages.models.students import LiftStudent

Geometry = Literal["full", "reduced"]
HELD_OUT = 397
"""The last digits, which nothing is trained on."""
_EPOCHS = 20
_BATCH = 32
_LR = 3e-3
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Named:
    """A network of the matrix."""

    arch: str
    graph: Graph = "plain"


NETWORKS: dict[str, Named] = {
    "deit_tiny plain": Named("deit_tiny_patch16_224"),
    "deit_tiny lift kept": Named("deit_tiny_patch16_224", "lift-kept"),
    "deit_tiny lift folded": Named("deit_tiny_patch16_224", "lift-folded"),
    "deit_tiny widelast": Named("deit_tiny_patch16_224", "widelast"),
    "cait_xxs24": Named("cait_xxs24_224"),
    "swin_tiny": Named("swin_tiny_patch4_window7_224"),
}


def spec_of(geometry: Geometry) -> PreprocessSpec:
    """How the networks of a geometry take images."""
    return PreprocessSpec(size=REDUCED_SIZE if geometry == "reduced" else 224, mean=_MEAN, std=_STD)


def digits(chosen: slice, spec: PreprocessSpec) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Handwritten digits as ``spec`` gives them, and their classes."""
    data = load_digits()
    images = np.stack([spec.apply(digit_image(pixels)) for pixels in data.images[chosen]])
    return images, data.target[chosen].astype(np.int64)


def network(name: str, geometry: Geometry, seed: int = 0) -> nn.Module:
    """The network ``name`` in eval mode; lift and widelast reach twice the student's width, as DeiT-Tiny's CaiT-S24."""
    named = NETWORKS[name]
    torch.manual_seed(seed)
    graph: Graph = "lift-kept" if named.graph == "lift-folded" else named.graph
    args = reduced_args(named.arch) if geometry == "reduced" else {}
    width = None if graph == "plain" else 2 * args.get("embed_dim", 192)
    classes = 10 if geometry == "reduced" else 1000
    module = build_model(ModelSpec(arch=named.arch, args=args, num_classes=classes, graph=graph, lift_width=width))
    if geometry == "reduced":
        _train(module)
    module.eval()
    return folded_from_lift(module)[0] if isinstance(module, LiftStudent) and graph != named.graph else module


def _train(module: nn.Module) -> None:
    images, labels = (torch.from_numpy(values) for values in digits(slice(None, -HELD_OUT), spec_of("reduced")))
    optimizer = torch.optim.AdamW(module.parameters(), lr=_LR, weight_decay=0.05)
    steps = _EPOCHS * len(images) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps)
    module.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (_BATCH,))
        optimizer.zero_grad()
        F.cross_entropy(module(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
