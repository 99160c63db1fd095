"""Which layers are compared, decided and checked against both networks before any data is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.distill.config import DistillConfig


@dataclass(frozen=True)
class Network:
    """A named network, as far as its taps go."""

    name: str
    """timm's; a pretrained tag may follow."""
    args: dict[str, Any]
    depth: int
    """Number of layers."""


def resolve_features(config: DistillConfig, student: Network, teacher: Network) -> DistillConfig:
    """Every layer as a non-negative index, and how the terms are balanced.

    The taps in use are checked by one image of no content through both networks without weights. A strategy widens
    taps but leaves their grid, so the unchanged student stands for all of them.

    Raises:
        UsageError: a layer that does not exist, a comparison given twice, or taps that cannot be compared.
    """
    from stages.distill.model import tap_shapes
    from stages.distill.pairs import (
        Shape,
        check_alignable,
        layer_pairs,
        resolved_features,
        student_layers,
        teacher_layers,
    )
    from stages.models.build import input_size
    from stages.models.geometry import meta_model

    def shapes(network: Network, layers: tuple[int, ...]) -> dict[int, Shape]:
        model = meta_model(network.name.partition(".")[0], network.args)
        return tap_shapes(model, input_size(network.args, model), layers)

    features = resolved_features(config, student.depth, teacher.depth)
    pairs = layer_pairs(config, student.depth, teacher.depth)
    if pairs:
        check_alignable(pairs, shapes(student, student_layers(pairs)), shapes(teacher, teacher_layers(pairs)))
    balance = config.balance if config.balance != "auto" else "gradients" if config.balances else "fixed"
    return config.model_copy(update={"features": features, "balance": balance})
