"""The width of a uniformly wider student, the control for lift and widelast (arXiv 2511.15572)."""

from __future__ import annotations

from typing import Any

import torch

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import check_strategy, shape_by_name, widened_args, width_step


def parameters_of(spec: ModelSpec) -> int:
    """Count the parameters of a network without making its weights."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(spec).parameters())


def matching_width(arch: str, args: dict[str, Any], num_classes: int, teacher_width: int) -> int:
    """Return the smallest width whose plain network has at least the parameters of the widelast student.

    Widths go in steps of 4 times the heads: their number stays, and a head keeps the size that rotary positions need.
    A UsageError is raised if there is no widelast student of this teacher to compare with.
    """
    shape = shape_by_name(arch, args)
    try:
        check_strategy("widelast", arch, shape, teacher_width)
        wide = ModelSpec(arch=arch, args=args, num_classes=num_classes, graph="widelast", lift_width=teacher_width)
        target = parameters_of(wide)
    except UsageError as error:
        raise UsageError(
            "student.uniform_width is auto, as many parameters as the widelast student has, and there is none: "
            f"{str(error).split(';')[0]}; give student.uniform_width."
        ) from error
    step = width_step(shape)
    width = shape.width // step * step
    while True:
        width += step
        plain = ModelSpec(arch=arch, args=widened_args(arch, args, width), num_classes=num_classes)
        if parameters_of(plain) >= target:
            return width
