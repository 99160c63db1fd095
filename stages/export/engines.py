"""What targets other than ONNX Runtime build of the graphs, or of the network behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from torch import nn

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision
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

    def trained(self, root: Path) -> nn.Module:
        """Return the network in torch, as trained, in eval mode."""
        return as_deployed(load_own(build_model(self.spec), self.weights, root), self.spec).eval()

    def options(self, config: ExportConfig, root: Path) -> BuildOptions:
        """Return what a target builds with."""

        def module() -> nn.Module:
            return deployed(self.trained(root), self.images.preprocess, config.input, rewrite=config.rewrites).module

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
        if precision not in target.precisions:
            raise ResultError(f"{target.title} does not run {precision}")
        made = target.build(network.graphs[precision], network.options(config, root))
        assert isinstance(made, EngineArtifact)  # noqa: S101 - of a target whose kind is "engine"
        if target.runs_on == "cpu":
            made = made.model_copy(update={"max_logit_difference": _compared(config, target, made, network, root)})
    except ResultError as error:
        context.say(f"no {precision} {target.title} of the {network.of}: {error}")
        made = EngineArtifact(status="unavailable", flavour=name, precision=precision, reason=str(error))
    return made


def _compared(
    config: ExportConfig, target: Target, made: EngineArtifact, network: Network, root: Path
) -> dict[str, float]:
    """Return how far a built file is from torch; {} where it does not run here. A ResultError: too far in fp32."""
    assert made.file is not None  # noqa: S101 - it was built
    images = network.images
    try:
        with target.open(root / made.file.path) as runner:
            found = max_difference(runner, network.trained(root), images.images, CHECKED_BATCHES, images.given)
    except EnvironmentLacksError:
        return {}
    worst = max(found.values())
    if made.precision == "fp32" and not (isfinite(worst) and worst <= config.tolerance):
        raise ResultError(
            f"its logits differ from torch's by {worst:.3g}, more than export.tolerance {config.tolerance:g}"
        )
    return found
