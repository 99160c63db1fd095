"""What targets other than ONNX Runtime build of the graphs, or of the network behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from torch import nn

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision, arithmetic_of
from vitcompress.core.context import Context
from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.core.records import DataRecord, FileRef, ModelSpec
from vitcompress.exporters import targets
from vitcompress.exporters.differences import max_difference
from vitcompress.exporters.targets import BuildOptions, Target
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.graphs import CHECKED_BATCHES, HeldOut
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.embedding import as_deployed
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.rewrites.deploy import deployed


@dataclass(frozen=True)
class Network:
    """One exported network: its graphs, and what else engines are built of and compared with."""

    graphs: Mapping[Precision, OnnxArtifact]
    missing: Mapping[Precision, str]
    """Why a precision has no graph."""
    spec: ModelSpec
    weights: FileRef
    data: DataRecord
    images: HeldOut
    of: Literal["student", "teacher"] = "student"
    qat_weights: FileRef | None = None
    """Those behind its int8-qat graph."""

    def trained(self, root: Path, precision: Precision = "fp32") -> nn.Module:
        """Return the network in torch, as trained (for int8-qat: for that), in eval mode."""
        weights = self.qat_weights if precision == "int8-qat" and self.qat_weights else self.weights
        return as_deployed(load_own(build_model(self.spec), weights, root), self.spec).eval()

    def options(self, config: ExportConfig, root: Path, precision: Precision) -> BuildOptions:
        """Return what a target builds with."""

        def module() -> nn.Module:
            trained = self.trained(root, precision)
            return deployed(trained, self.images.preprocess, config.input, rewrite=config.rewrites).module

        def calibration() -> NDArray[Any]:
            train = recorded_images(self.data)[1].train
            found: NDArray[Any] = sample(train, self.images.preprocess, config.calibration_images).numpy()
            return found

        return BuildOptions(
            root,
            config.opt_batch,
            config.max_batch,
            config.compute_capabilities,
            module=module,
            calibration=calibration,
            labels=() if self.data.task == "embedding" else self.data.classes,
            preprocess=self.images.preprocess,
        )


def build_engines(config: ExportConfig, network: Network, context: Context) -> tuple[EngineArtifact, ...]:
    """Build one artifact for each target and each precision; one that cannot be built has its reason."""
    return tuple(
        build_engine(config, name, precision, network, context)
        for name in config.engines
        for precision in config.precisions_of(name)
    )


def build_engine(
    config: ExportConfig, name: str, precision: Precision, network: Network, context: Context
) -> EngineArtifact:
    """Build what the target ``name`` runs of a network in a precision; of one that cannot be built, the reason.

    Where it runs here, it is compared with torch on real images: in fp32 it may differ by ``export.tolerance``.
    """
    target, root = targets.get(name), context.run.root
    try:
        if precision not in network.graphs:
            why = network.missing.get(precision, "export.precision does not have it")
            raise ResultError(f"there is no {precision} graph to build it of: {why}")
        kind = arithmetic_of(precision)
        if kind not in target.precisions:
            raise ResultError(f"{target.title} does not run {kind}; it runs {', '.join(target.precisions)}")
        graph = network.graphs[precision].model_copy(update={"precision": kind})
        made = target.build(graph, network.options(config, root, precision))
        assert isinstance(made, EngineArtifact)  # noqa: S101 - of a target whose kind is "engine"
        made = made.model_copy(update={"precision": precision})
        trained = partial(network.trained, root, precision)
        made = compared(config, target, made, trained, network.images, root)
    except ResultError as error:
        context.say(f"no {precision} {target.title} of the {network.of}: {error}")
        made = EngineArtifact(status="unavailable", flavour=name, precision=precision, reason=str(error))
    return made


def compared(
    config: ExportConfig,
    target: Target,
    made: EngineArtifact,
    trained: Callable[[], nn.Module],
    images: HeldOut,
    root: Path,
) -> EngineArtifact:
    """Return a built artifact with how far it is from torch, where it is for a CPU and runs on this one.

    ``trained`` returns the network as it was trained. A ResultError is raised where fp32 is too far from it.
    """
    if target.runs_on == "gpu":
        return made
    assert made.file is not None  # noqa: S101 - it was built
    try:
        with target.open(root / made.file.path) as runner:
            found = max_difference(runner, trained(), images.images, CHECKED_BATCHES, images.given)
    except EnvironmentLacksError:
        return made
    worst = max(found.values())
    if made.precision == "fp32" and not (isfinite(worst) and worst <= config.tolerance):
        named, limit = made.file.path, config.tolerance
        raise ResultError(f"logits of {named} differ from torch's by {worst:.3g}, more than export.tolerance {limit:g}")
    return made.model_copy(update={"max_logit_difference": found})
