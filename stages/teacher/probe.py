"""A linear probe: a linear classifier of a frozen network's features, put into the network's own head.

Features are computed once; the head is a multinomial logistic regression by L-BFGS, which takes a second where an epoch
of training takes minutes. Fine-tuning from it, and not from a random head, does not first distort the features [LP-FT]
(Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

PENALTIES = tuple(float(10 ** (-half / 2)) for half in range(14))
"""Of the squared weights, from the strongest, 1, to 3e-7: what suits 100 images, and what suits a million."""
FIXED_PENALTY = 0.1
"""Where there is nothing to choose it on: rather strong, for images are then few."""
_ITERATIONS = 100


class PooledFeatures(nn.Module):
    """What the classifier of a timm network reads: images ``[B, 3, S, S]`` to features ``[B, F]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return them pooled and normalised, before the last linear layer."""
        network: Any = self.network
        features: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
        return features


@dataclass(frozen=True)
class Head:
    """A linear classifier of features as the network gives them."""

    weight: Tensor
    """Float32 ``[K, F]``."""
    bias: Tensor
    """Float32 ``[K]``."""

    def logits(self, features: Tensor) -> Tensor:
        """Return logits ``[N, K]`` of features ``[N, F]``."""
        return F.linear(features, self.weight, self.bias)


def linear_heads(network: Any, size: int, channels: int = 3) -> tuple[nn.Linear, ...]:
    """Return the last linear layers, whose mean the logits are (a distilled DeiT has two, others one).

    Tried out on two images of ``size`` pixels with random weights in the heads, which are put back. Empty where the
    logits are not linear in the features of ``PooledFeatures``: there is no head that a probe could be put into.
    """
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    found = network.get_classifier() if hasattr(network, "get_classifier") else None
    heads = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    if not all(isinstance(head, nn.Linear) and head.bias is not None for head in heads):
        return ()
    network.eval()
    with torch.no_grad():
        try:
            features = PooledFeatures(network)(images)
        except (AttributeError, TypeError):  # a network without these methods, or without pre_logits
            return ()
        if features.shape != (len(images), heads[0].in_features):
            return ()
        before = [{name: value.clone() for name, value in head.state_dict().items()} for head in heads]
        generator = torch.Generator().manual_seed(0)
        tried = Head(*(torch.randn(part.shape, generator=generator) for part in heads[0].parameters()))
        install(heads, tried)
        same = torch.allclose(network(images), tried.logits(features), rtol=1e-3, atol=1e-3)
        for head, state in zip(heads, before, strict=True):
            head.load_state_dict(state)
    return heads if same else ()


def install(heads: Sequence[nn.Linear], head: Head) -> None:
    """Give all heads of a network the probe's weights: their mean is then the probe's own answer."""
    for own in heads:
        own.load_state_dict({"weight": head.weight, "bias": head.bias})


def fitted_heads(
    features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float], device: torch.device
) -> Iterator[tuple[float, Head]]:
    """Yield each penalty with its head, every one starting from the one before.

    Over W ``[K, F]`` and b ``[K]`` the mean cross-entropy of ``W z + b`` plus half the penalty times the sum of W's
    squares is minimised, where z are the features less their mean over their standard deviation; both go into the head
    that is given, exactly. Of several labels it is the binary cross-entropy, summed over classes: a logistic regression
    of each class by itself.

    ``features`` are float32 ``[N, F]``, ``labels`` int64 ``[N]``, or of several labels float32 ``[N, K]``; the
    strongest of ``penalties`` comes first.
    """
    mean, spread = features.double().mean(0), features.double().std(0, correction=0)
    spread[spread <= 1e-6 * spread.max()] = 1.0  # a feature that never changes says nothing
    inputs, targets = ((features - mean) / spread).float().to(device), labels.to(device)
    weight = torch.zeros(classes, features.shape[1], device=device, requires_grad=True)
    bias = torch.zeros(classes, device=device, requires_grad=True)
    for penalty in penalties:
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_grad=1e-5
        )

        def objective(penalty: float = penalty) -> Tensor:
            loss = _cross_entropy(F.linear(inputs, weight, bias), targets) + penalty / 2 * weight.square().sum()
            weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
            return loss

        optimizer.step(objective)  # type: ignore[no-untyped-call]  # torch's is untyped
        scaled = weight.detach().cpu().double() / spread
        yield penalty, Head(scaled.float(), (bias.detach().cpu().double() - scaled @ mean).float())


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(labels)
    return F.cross_entropy(logits, labels)


def chosen_head(
    features: Tensor, labels: Tensor, tuning: NDArray[np.int64], classes: int, device: torch.device
) -> tuple[float, Head]:
    """Return the penalty of the least cross-entropy on the images at ``tuning``, and the head fitted to the others.

    Weaker penalties are tried until one does worse. Without tuning images it is ``FIXED_PENALTY``, fitted to all.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[torch.from_numpy(tuning)] = True
    penalties = PENALTIES if len(tuning) else (FIXED_PENALTY,)
    least, best = float("inf"), None
    for penalty, head in fitted_heads(features[~held], labels[~held], classes, penalties, device):
        loss = float(_cross_entropy(head.logits(features[held]), labels[held])) if len(tuning) else 0.0
        if loss >= least:
            break
        least, best = loss, (penalty, head)
    assert best is not None  # noqa: S101 - the first is less than infinity
    return best
