"""Full-size networks that tell digits apart, untrained: random weights, a classifier fitted by ridge regression.

Random weights alone give logits that hardly depend on the image, and whether a precision keeps the top-1 of those
says nothing. A linear classifier on a random network's features is right on most digits, some by a narrow margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from core.preprocess import PreprocessSpec
from core.records import Graph, ModelSpec
from stages.fold.stage import folded_from_lift
from stages.images.sources import digit_image
from stages.models.build import build_model
from stages.models.students import LiftStudent

SPEC = PreprocessSpec(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CLASSES = 10
_WIDTH = 384
"""Of CaiT-S24, which lift and widelast reach."""
_RIDGE = 0.3
"""Enough that the classifier does not amplify rounding: with 1e-3, fp32 itself differed by 1e-3 between runtimes."""
_BATCH = 16


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


def digits(count: int, spec: PreprocessSpec = SPEC, start: int = 0) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """``count`` handwritten digits from ``start`` on, as ``spec`` gives them, and their classes."""
    data = load_digits()
    chosen = slice(start, start + count)
    images = np.stack([spec.apply(digit_image(pixels)) for pixels in data.images[chosen]])
    return images, data.target[chosen].astype(np.int64)


def fitted(name: str, examples: int, size: int = 224, seed: int = 0) -> nn.Module:
    """The network ``name`` at ``size`` pixels, its classifier fitted to ``examples`` digits; in eval mode."""
    named = NETWORKS[name]
    torch.manual_seed(seed)
    graph: Graph = "lift-kept" if named.graph == "lift-folded" else named.graph
    args = {} if size == 224 else {"img_size": size}
    width = None if graph == "plain" else _WIDTH
    module = build_model(ModelSpec(arch=named.arch, args=args, num_classes=CLASSES, graph=graph, lift_width=width))
    spec = SPEC.model_copy(update={"size": size})
    images, labels = digits(examples, spec)
    _fit_classifier(module.eval(), torch.from_numpy(images), torch.from_numpy(labels))
    if isinstance(module, LiftStudent) and named.graph == "lift-folded":
        return folded_from_lift(module)[0]
    return module


def _fit_classifier(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Ridge regression of one-hot classes on what the classifier is given, float64; logits ten times as far apart."""
    head = _classifier(module)
    seen: list[Tensor] = []
    watch = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().double()))
    with torch.inference_mode():
        for part in torch.split(images, _BATCH):
            module(part)
    watch.remove()
    features = torch.cat(seen).flatten(1)
    centre, spread = features.mean(0), features.std(0) + 1e-9
    design = (features - centre) / spread
    targets = torch.nn.functional.one_hot(labels, CLASSES).double() - 1 / CLASSES
    gram = design.T @ design / len(design) + _RIDGE * torch.eye(design.shape[1], dtype=torch.float64)
    weight = 10 * torch.linalg.solve(gram, design.T @ targets / len(design)).T / spread
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(-weight @ centre)


def _classifier(module: nn.Module) -> nn.Linear:
    found: Callable[[], nn.Module] | None = getattr(module, "get_classifier", None)
    head: Any = found() if found else module.head
    if not isinstance(head, nn.Linear):
        raise TypeError(f"the classifier of {type(module).__name__} is a {type(head).__name__}, not a linear map.")
    return head
