"""Importing this lets timm build the students that are no architecture of its own: lifted and widened ones.

import timm
import vitcompress.stages.models.timm_entry
model = timm.create_model("local-dir:BUNDLE/timm", pretrained=True)
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from timm.models import build_model_with_cfg, register_model
from torch import nn

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model


def compress_student(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build a student described by ``spec``, the values of a ``ModelSpec``; timm's entry point.

    ``num_classes`` other than the spec's leaves the classifier at random weights, as timm does for its own models.
    Further arguments (``drop_path_rate``, ...) go to the architecture that the student was made of.

    Raises:
        UsageError: ``spec`` is missing or no spec, or other than 3 input channels were asked for.
    """
    model: nn.Module = build_model_with_cfg(_student, "compress_student", pretrained, **kwargs)
    return model


def _student(
    spec: dict[str, Any] | None = None, num_classes: int | None = None, in_chans: int = 3, **args: Any
) -> nn.Module:
    try:
        known = ModelSpec.model_validate(spec)
    except ValidationError as error:
        raise UsageError(
            "compress_student is built from the 'spec' in a bundle's timm/config.json, and "
            f"{'none' if spec is None else 'something else'} was given; use "
            'timm.create_model("local-dir:BUNDLE/timm", pretrained=True).'
        ) from error
    if in_chans != 3:
        raise UsageError(f"compress_student takes RGB images, 3 channels; in_chans={in_chans} was given.")
    classes = known.num_classes if num_classes is None else num_classes
    return build_model(known.model_copy(update={"num_classes": classes, "args": {**known.args, **args}}))


register_model(compress_student)
