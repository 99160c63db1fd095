"""One network as an fp32 ONNX graph, rewritten exactly and compared with torch on real images."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vitcompress.core.artifact_records import OnnxArtifact
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.files import reference
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import Cost, DataRecord, FileRef, ModelSpec
from vitcompress.exporters.bundled import EMBEDDING
from vitcompress.exporters.differences import max_difference
from vitcompress.exporters.onnx import OUTPUT, onnx_from_module
from vitcompress.exporters.precision.audit import operator_dtypes
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.embedding import Normalised, as_deployed
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.rewrites.deploy import deployed

CHECKED_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, as torch and as an exported graph take them."""

    images: NDArray[np.float32]
    """Float32 ``[N, 3, S, S]``, normalised."""
    given: NDArray[Any]
    """The same as ``preprocess.input`` says."""
    preprocess: PreprocessSpec
    """Of the graph."""


def held_out(data: DataRecord, spec: PreprocessSpec, config: ExportConfig) -> HeldOut:
    """Return up to ``export.images`` of the held-out images, evenly spread."""
    split = recorded_images(data)[1].val
    images: NDArray[np.float32] = sample(split, spec, config.images).numpy()
    taken = spec.model_copy(update={"input": config.input})
    given = images if config.input == spec.input else sample(split, taken, config.images).numpy()
    return HeldOut(images, given, taken)


def export_graph(
    config: ExportConfig,
    name: str,
    spec: ModelSpec,
    weights: FileRef,
    cost: Cost,
    images: HeldOut,
    context: Context,
) -> OnnxArtifact:
    """Export one network and compare it with torch, as trained, on real images.

    A ResultError is raised where it cannot be exported, or differs from torch by more than ``export.tolerance``.
    """
    root = context.run.root
    module = as_deployed(load_own(build_model(spec), weights, root), spec).eval()
    artifact = export_module(config, module, cost, images, root / "export" / f"{name}.onnx", root)
    worst = max(artifact.max_logit_difference.values())
    if not (isfinite(worst) and worst <= config.tolerance):
        raise ResultError(
            f"{name}.onnx differs from torch by {worst:.3g} in logits, more than export.tolerance "
            f"{config.tolerance:g}; nothing was deployed."
        )
    return artifact


def export_module(
    config: ExportConfig, module: nn.Module, cost: Cost, images: HeldOut, path: Path, root: Path
) -> OnnxArtifact:
    """Export a network in eval mode to ``path``, below ``root``, rewritten; say how far it is from torch on the images.

    A ResultError is raised where it cannot be exported.
    """
    rewritten = deployed(module, images.preprocess, config.input, rewrite=config.rewrites)
    facts = onnx_from_module(
        rewritten.module,
        path,
        size=images.preprocess.size,
        chans=images.preprocess.channels,
        max_batch=config.max_batch,
        opset=config.opset,
        input=config.input,
        output=OUTPUT if not isinstance(module, Normalised) else EMBEDDING,
    )
    with OnnxRunner(path) as runner:
        differences = max_difference(runner, module, images.images, CHECKED_BATCHES, images.given)
    return OnnxArtifact(
        name=path.stem,
        file=reference(path, root),
        data=reference(facts.data, root) if facts.data else None,
        input=config.input,
        cost=cost,
        nodes=facts.nodes,
        opset=facts.opset,
        max_logit_difference=differences,
        tolerance=config.tolerance,
        seconds=facts.seconds,
        rewrites=rewritten.applied,
        not_rewritten=rewritten.skipped,
        operators=operator_dtypes(path),
    )
