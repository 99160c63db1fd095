"""Reduced precisions of a graph: what could be made, and why the rest could not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vitcompress.core.artifact_records import OnnxArtifact, Precision, arithmetic_of
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.files import reference
from vitcompress.core.records import DataRecord, FileRef, ModelSpec
from vitcompress.exporters.differences import max_difference
from vitcompress.exporters.precision.compare import LIMITS
from vitcompress.exporters.precision.recipes import CALIBRATED
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.graphs import CHECKED_BATCHES, HeldOut
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.embedding import as_deployed
from vitcompress.stages.models.weights import load_own


def reduce_graph(
    config: ExportConfig,
    wanted: Sequence[Precision],
    artifact: OnnxArtifact,
    model: ModelSpec,
    weights: FileRef,
    data: DataRecord,
    images: HeldOut,
    context: Context,
) -> tuple[dict[Precision, OnnxArtifact], dict[Precision, str]]:
    """Return the fp32 graph in the ``wanted`` precisions, and the reasons of those that could not be made.

    Training images of ``data``, evenly spread, calibrate int8 and fp8; ``images`` judge.
    """
    root = context.run.root
    made: dict[Precision, OnnxArtifact] = {}
    missing: dict[Precision, str] = {}
    calibration = images.given[:0]
    if {arithmetic_of(one) for one in wanted} & set(CALIBRATED):
        split = recorded_images(data)[1].train
        calibration = sample(split, images.preprocess, config.calibration_images).numpy()
    for precision in wanted:
        path = root / "export" / f"{artifact.name}.{precision}.onnx"
        differences: dict[str, float] = {}
        limits = LIMITS[arithmetic_of(precision)]
        if data.task == "multilabel":  # which logit is the highest means nothing
            limits = replace(limits, agreement=0.0)
        try:
            facts = reduced_from_onnx(
                root / artifact.file.path,
                path,
                arithmetic_of(precision),
                calibration=calibration,
                checked=images.given,
                limits=limits,
                log=context.say,
            )
            if facts.how.as_run is not None:
                module = as_deployed(load_own(build_model(model), weights, root), model).eval()
                with OnnxRunner(path) as runner:
                    differences = max_difference(runner, module, images.images, CHECKED_BATCHES, images.given)
        except (ResultError, UsageError) as error:  # the latter: too large for it; the other artifacts are good without
            context.say(f"no {precision} of {artifact.file.path.rpartition('/')[2]}: {error}")
            missing[precision] = str(error)
            continue
        update = {
            "name": f"{artifact.name}.{precision}",
            "file": reference(path, root),
            "data": None,
            "precision": precision,
            "nodes": facts.nodes,
            "max_logit_difference": differences,
            "seconds": facts.seconds,
            "operators": facts.audit,
            "reduced": facts.how,
        }
        made[precision] = artifact.model_copy(update=update)
    return made, missing
