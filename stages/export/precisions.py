"""Reduced precisions of the deployed graph: what could be made, and why the rest could not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import OnnxArtifact, Precision
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.files import reference
from vitcompress.exporters.onnx import max_difference
from vitcompress.exporters.precision.limits import default_limits
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.graphs import CHECKED_BATCHES, Sample
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own

_CALIBRATED: tuple[Precision, ...] = ("int8", "fp8")


def reduce_graph(
    config: ExportConfig, artifact: OnnxArtifact, source: Sample, context: Context
) -> tuple[dict[Precision, OnnxArtifact], dict[Precision, str]]:
    """Return the graph in every precision asked for but fp32, and the reasons of those that could not be made."""
    made: dict[Precision, OnnxArtifact] = {}
    missing: dict[Precision, str] = {}
    wanted = config.precisions[1:]
    calibration = _calibration(config, source) if set(wanted) & set(_CALIBRATED) else source.held_out.given[:0]
    for precision in wanted:
        try:
            made[precision] = _reduce(config, artifact, precision, calibration, source, context)
        except (ResultError, UsageError) as error:  # the latter: too large for it; the other artifacts are good without
            context.say(f"no {precision}: {error}")
            missing[precision] = str(error)
    return made, missing


def _calibration(config: ExportConfig, source: Sample) -> NDArray[Any]:
    """Return training images as the graph takes them, evenly spread over the split."""
    split = recorded_images(source.data)[1].train
    return np.asarray(sample(split, source.held_out.preprocess, config.calibration_images).numpy())


def _reduce(
    config: ExportConfig,
    artifact: OnnxArtifact,
    precision: Precision,
    calibration: NDArray[Any],
    source: Sample,
    context: Context,
) -> OnnxArtifact:
    root = context.run.root
    path = root / "export" / f"{artifact.name}.{precision}.onnx"
    facts = reduced_from_onnx(
        root / artifact.file.path,
        path,
        precision,
        calibration=calibration,
        checked=source.held_out.given,
        limits=default_limits(precision),
        log=context.say,
    )
    differences: dict[str, float] = {}
    if facts.how.as_run is not None:
        module = load_own(build_model(source.model), source.weights, root).eval()
        differences = max_difference(path, module, source.held_out.images, CHECKED_BATCHES, source.held_out.given)
    return artifact.model_copy(
        update={
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
    )
