"""Importing this lets timm build the students that are no architecture of its own: lifted and widened ones.

import timm
import vitcompress.stages.models.timm_entry
model = timm.create_model("local-dir:BUNDLE/timm", pretrained=True)
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from timm.models import PretrainedCfg, build_model_with_cfg, register_model
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import is_own
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.families.family import Family, Shape
from vitcompress.stages.models.families.registry import register
from vitcompress.stages.models.students import FoldedLift, LiftStudent


def compress_student(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build a student described by ``spec``, the values of a ``ModelSpec``; timm's entry point.

    ``num_classes`` other than the spec's leaves the classifier at random weights, as timm does for its own models.
    Further arguments (``drop_path_rate``, ...) go to the architecture that the student was made of.

    Raises:
        UsageError: ``spec`` is missing or no spec, or other input channels than its own were asked for.
    """
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or PretrainedCfg()  # timm would warn of its own default
    model: nn.Module = build_model_with_cfg(_student, "compress_student", pretrained, **kwargs)
    return model


def _student(
    spec: dict[str, Any] | None = None, num_classes: int | None = None, in_chans: int | None = None, **args: Any
) -> nn.Module:
    try:
        known = ModelSpec.model_validate(spec)
    except ValidationError as error:
        raise UsageError(
            "compress_student is built from the 'spec' in a bundle's timm/config.json, and "
            f"{'none' if spec is None else 'something else'} was given; use "
            'timm.create_model("local-dir:BUNDLE/timm", pretrained=True).'
        ) from error
    if is_own(known.arch):  # whoever wrote the file, perhaps a stranger on a hub, would choose what runs here
        raise UsageError(f"compress_student was given code ('{known.arch}') as its architecture, which is not run.")
    own = known.args.get("in_chans", 3)
    if in_chans not in (None, own):
        raise UsageError(f"compress_student takes images of {own} channels; in_chans={in_chans} was given.")
    classes = known.num_classes if num_classes is None else num_classes
    return build_model(known.model_copy(update={"num_classes": classes, "args": {**known.args, **args}}))


class Lifted(Family):
    """Lifted networks, folded or not, as teachers: taps are the base's, an unfolded lift's last one is lifted."""

    networks = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in (LiftStudent, FoldedLift))

    def shape(self, network: Any) -> Shape | None:
        """Return the width of the last tap and the number of taps."""
        width = network.head.in_features  # what is lifted; folded, the base's
        return Shape(width, network.base.depth, heads=1)

    def classifies(self, network: nn.Module) -> bool:
        """Return that it does."""
        return True

    def taps(self, network: Any, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Return the taps ``[B, D, H, W]`` of ascending ``layers``."""
        return self.logits_and_taps(network, images, layers)[1]

    def logits_and_taps(self, network: Any, images: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return the logits ``[B, K]``, and the taps ``[B, D, H, W]`` of ascending ``layers``."""
        found: tuple[Tensor, list[Tensor]] = network.forward_with_taps(images, layers)
        return found


register(Lifted)
register_model(compress_student)
