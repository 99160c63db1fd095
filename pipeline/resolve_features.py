"""Which layers are compared, decided and checked against both networks before any data is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vitcompress.core.errors import UsageError
from vitcompress.stages.distill.config import DistillConfig

if TYPE_CHECKING:
    from vitcompress.stages.distill.pairs import Shape


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
    from vitcompress.stages.distill.pairs import (
        check_alignable,
        layer_pairs,
        resolved_features,
        student_layers,
        teacher_layers,
    )

    def shapes(network: Network, layers: tuple[int, ...]) -> dict[int, Shape]:
        return _tap_shapes(network.name.partition(".")[0], json.dumps(network.args, default=str), layers)

    features = resolved_features(config, student.depth, teacher.depth)
    pairs = layer_pairs(config, student.depth, teacher.depth)
    if pairs:
        check_alignable(pairs, shapes(student, student_layers(pairs)), shapes(teacher, teacher_layers(pairs)))
    balance = config.balance if config.balance != "auto" else "gradients" if config.balances else "fixed"
    return config.model_copy(update={"features": features, "balance": balance})


@lru_cache(maxsize=32)
def _tap_shapes(arch: str, args: str, layers: tuple[int, ...]) -> dict[int, Shape]:
    """Shape of the tap of each layer, of arguments as JSON; asked for again by each way in which a run is looked at.

    Raises:
        UsageError: the network does not take such an image, or not without its weights.
    """
    from vitcompress.stages.distill.model import tap_shapes
    from vitcompress.stages.models.build import input_size
    from vitcompress.stages.models.geometry import REFUSALS, meta_model

    own = json.loads(args)
    model = meta_model(arch, own)
    size = input_size(own, model)
    try:
        return tap_shapes(model, size, layers)
    except REFUSALS as error:
        raise UsageError(
            f"the taps of {arch} at {size} px cannot be found ({' '.join(str(error).split())[:120]}); give another "
            "--image-size or network."
        ) from error
