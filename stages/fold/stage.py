"""Make every deployable graph of the trained student, and prove that a folded lift answers like the kept one."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import DataRecord, DistillRecord, FoldRecord, StudentRecord
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.models.embedding import as_deployed
from vitcompress.stages.models.students import FoldedLift, LiftStudent
from vitcompress.stages.models.weights import load_own, save_weights
from vitcompress.stages.rewrites.fuse import fused
from vitcompress.stages.rewrites.lift import fold


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    student: StudentRecord
    distill: DistillRecord


def run(config: FoldConfig, inputs: Inputs, context: Context) -> FoldRecord:
    """Fold a lift; other strategies have nothing to fold and pass through.

    Whether the difference is acceptable is judged by export, where one of the two graphs is chosen.
    A ResultError is raised if a graph answers with NaN or infinity.
    """
    root = context.run.root
    spec = inputs.distill.model
    size, channels = inputs.student.preprocess.size, inputs.student.preprocess.channels
    file = inputs.distill.weights if config.weights == "chosen" else inputs.distill.file_of(config.weights, root)
    kept = load_own(build_model(spec), file, root).eval()
    weights, models = {spec.graph: file}, {spec.graph: spec}
    costs = {spec.graph: cost_of(fused(kept), size, channels)}
    if not isinstance(kept, LiftStudent):
        return FoldRecord(
            graphs=weights,
            models=models,
            costs=costs,
            max_logit_difference=None,
            tolerance=config.tolerance,
            images=0,
            rank=None,
        )
    folded, rank = folded_from_lift(kept)
    images = sample(recorded_images(inputs.data)[1].val, inputs.student.preprocess, config.images)
    difference = max_logit_difference(as_deployed(kept, spec), as_deployed(folded, spec), images)
    if not isfinite(difference):
        raise ResultError("the student's logits are not finite on real images; lower distill.lr and run again.")
    folded_spec = spec.model_copy(update={"graph": "lift-folded", "fold_rank": rank})
    path = root / "student" / "folded.safetensors"
    return FoldRecord(
        graphs={**weights, "lift-folded": save_weights(folded.state_dict(), path, root)},
        models={**models, "lift-folded": folded_spec},
        costs={**costs, "lift-folded": cost_of(fused(folded), size, channels)},
        max_logit_difference=difference,
        tolerance=config.tolerance,
        images=len(images),
        rank=rank,
    )


def folded_from_lift(lift: LiftStudent) -> tuple[FoldedLift, int]:
    """Return a new network with the same base weights and the folded matrices, and the rank of R."""
    root_RS, head_KS, bias_K = fold(
        lift.projector.weight, lift.norm.weight, lift.norm.bias, lift.head.weight, lift.head.bias
    )
    rank = len(root_RS)
    folded = FoldedLift(deepcopy(lift.base), rank, len(bias_K), eps=lift.norm.eps).to(lift.head.weight.dtype)
    with torch.no_grad():
        folded.root.weight.copy_(root_RS)
        folded.head.weight.copy_(head_KS)
        folded.head.bias.copy_(bias_K)
    return folded.eval(), rank


def max_logit_difference(one: nn.Module, other: nn.Module, images: Tensor, batch: int = 32) -> float:
    """Return the largest difference of two networks' logits over images ``[N, 3, S, S]``; NaN is infinite."""
    with torch.inference_mode():
        differences = [(one(part) - other(part)).abs().max() for part in torch.split(images, batch)]
    worst = torch.stack(differences).max()
    return float("inf") if bool(worst.isnan()) else float(worst)
