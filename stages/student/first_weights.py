"""A student's first weights out of its teacher, found on some training images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import DataRecord, ModelSpec, TeacherRecord
from vitcompress.stages.analysis.sample import training_sample
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.inherit.inherit import inherit, why_not
from vitcompress.stages.models.inherit.streams import layout_of
from vitcompress.stages.models.students import network_inside
from vitcompress.stages.models.weights import all_finite, load_own
from vitcompress.stages.training.device import make_accelerator, torch_threads

_ROWS = 24_576
"""Tokens that the directions and corrections are found on, about: some sixty times the width of a ViT-S."""
_LEAST, _MOST = 64, 512
"""Images they come from."""
_BATCH = 64


def first_weights(
    model: nn.Module,
    spec: ModelSpec,
    preprocess: PreprocessSpec,
    teacher: TeacherRecord,
    data: DataRecord,
    context: Context,
) -> dict[str, Any]:
    """Give ``model`` its teacher's weights, in place, and return what the student's record says of them.

    ``model`` is the student with random weights, on the CPU, ``preprocess`` its own. Of the training images some are
    read, evenly spread and not augmented. A UsageError is raised if the student is wider than the teacher or of another
    family, a ResultError if a weight is not finite.
    """
    reason = why_not((teacher.model.arch, teacher.model.args), (spec.arch, spec.args))
    if reason:
        raise UsageError(f"student.init is 'teacher', but {reason}; use --set student.init=random.")
    device = make_accelerator(context.device).device
    network = load_own(build_model(teacher.model), teacher.weights, context.run.root)
    sample = training_sample(data, min(_MOST, max(_LEAST, _ROWS // layout_of(network_inside(model)).patches)))
    framing = {"crop_pct": preprocess.crop_pct, "crop_mode": preprocess.crop_mode}  # both look at the same part of it
    specs = teacher.preprocess.model_copy(update=framing), preprocess
    with torch_threads(context.threads):
        seen, own = (
            torch.cat(list(sample.batches(each, batch_size=_BATCH, workers=context.workers))).to(device)
            for each in specs
        )
        found = inherit(network.to(device), model.to(device), (seen, own), specs)
    model.cpu().train()
    if not all_finite(model.state_dict()):
        raise ResultError("the weights inherited from the teacher are not finite; use --set student.init=random.")
    context.say(f"first weights: read {sample.words}")
    return {"source": found.words, "loaded": len(found.loaded), "not_loaded": found.not_loaded}
