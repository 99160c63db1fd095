"""Networks of a caller's own: fold a lift, export, analyse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.files import reference
from vitcompress.exporters import targets as known_targets
from vitcompress.exporters.onnx import max_difference, onnx_from_module
from vitcompress.exporters.precision.audit import operator_dtypes
from vitcompress.pipeline.api.arguments import PathLike, console_of
from vitcompress.pipeline.api.distilling import Distilled
from vitcompress.pipeline.api.given import (
    Batches,
    as_given,
    image_count,
    shape_of_taps,
    tappable,
)
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import measure_network
from vitcompress.stages.analysis.write import write
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import cost_of
from vitcompress.stages.models.families.given import GivenNetwork, Tap
from vitcompress.stages.models.students import LiftStudent
from vitcompress.stages.rewrites.deploy import deployed
from vitcompress.stages.training.device import make_accelerator


def fold(lifted: nn.Module | Distilled) -> nn.Module:
    """Fold a lift's projector, LayerNorm and classifier into two matrices, exactly.

    ``s_t = sqrt(|R z_t|^2 + eps)``, ``logits = A mean_t(z_t / s_t) + b`` ([EM]; docs/strategies.md).

    Args:
        lifted: of :func:`vitcompress.distill` with the strategy ``lift``.

    Returns:
        A new network in eval mode, as wide as the student alone.

    Raises:
        UsageError: the network is no lift.

    Example:
        >>> folded = vc.fold(vc.distill(teacher, student, train, val, epochs=1, progress=False))
        >>> folded(next(iter(val))[0]).shape[1]
        10
    """
    network = lifted.student if isinstance(lifted, Distilled) else lifted
    if not isinstance(network, LiftStudent):
        raise UsageError(
            f"{type(network).__name__} is no lift and has nothing to fold; give the result of vitcompress.distill with "
            "strategy='lift'."
        )
    return folded_from_lift(network)[0]


def export_module(
    module: nn.Module | Distilled,
    output: PathLike,
    *,
    images: Tensor | None = None,
    size: int | None = None,
    targets: Sequence[str] = ("onnx",),
    max_batch: int = 32,
    tolerance: float = 1e-3,
    name: str = "student",
) -> tuple[Any, ...]:
    """Export a network to ONNX, rewritten exactly and compared with torch, and build what else is asked for.

    Args:
        module: maps float32 ``[B, 3, S, S]`` to logits ``[B, K]``; not changed.
        output: a folder.
        images: float32 ``[N, 3, S, S]`` to compare on; None for noise, which says less.
        size: S, where no images are given.
        targets: ``onnx``, and engines such as ``tensorrt``.
        max_batch: largest batch.
        tolerance: largest accepted difference of logits from torch.
        name: of the files.

    Returns:
        One artifact a target, the graph first.

    Raises:
        UsageError: neither images nor size are given, or a target is not known.
        EnvironmentLacksError: an engine that was asked for cannot be built here.
        ResultError: the graph cannot be exported, or its logits differ from torch's.
    """
    from vitcompress.core.artifact_records import OnnxArtifact

    network = (module.student if isinstance(module, Distilled) else module).eval()
    if images is None and size is None:
        raise UsageError("exporting a network needs images=... to compare it on, or at least size=... of its input.")
    generator = torch.Generator().manual_seed(0)
    compared = images if images is not None else torch.randn(8, 3, size or 0, size or 0, generator=generator)
    side, root = int(compared.shape[-1]), Path(output)
    engines = [known_targets.get(one) for one in targets if one != "onnx"]
    for target in engines:
        target.require()
    rewritten = deployed(network, as_given(side), "float")
    path = root / f"{name}.onnx"
    facts = onnx_from_module(rewritten.module, path, size=side, max_batch=max_batch)
    differences = max_difference(path, network, compared.numpy())
    if not max(differences.values()) <= tolerance:
        raise ResultError(
            f"{path} differs from torch by {max(differences.values()):.3g} in logits, more than the tolerance "
            f"{tolerance:g}; do not use it."
        )
    graph = OnnxArtifact(
        name=name,
        file=reference(path, root),
        data=reference(facts.data, root) if facts.data else None,
        input="float",
        cost=cost_of(network, side),
        nodes=facts.nodes,
        opset=facts.opset,
        max_logit_difference=differences,
        tolerance=tolerance,
        seconds=facts.seconds,
        rewrites=rewritten.applied,
        not_rewritten=rewritten.skipped,
        operators=operator_dtypes(path),
    )
    options = known_targets.BuildOptions(root=root, max_batch=max_batch, opt_batch=min(8, max_batch))
    return (graph, *(target.build(graph, options) for target in engines))


@dataclass(frozen=True)
class Analysis:
    """What :func:`vitcompress.analyze` gives."""

    document: dict[str, Any]
    """What analysis.json holds: each layer's measures (docs/analysis.md)."""
    folder: Path
    """Where analysis.json, tables and figures are."""


def analyze_module(
    module: nn.Module | Distilled,
    images: Tensor | Batches,
    *,
    taps: Sequence[Tap] | None = None,
    prefix_tokens: int | None = None,
    output: PathLike | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: bool = True,
) -> Analysis:
    """Read the features of a network layer by layer: rank, directions, intensity, entropy (docs/analysis.md).

    Args:
        module: maps images ``[B, 3, S, S]`` to logits ``[B, K]``; not changed.
        images: float32 ``[N, 3, S, S]`` as the network takes them, or batches of them, with labels or without.
        taps: as for :func:`vitcompress.distill`.
        prefix_tokens: likewise.
        output: a new folder; None for ``runs/analysis-MODULE``.
        device: where to compute.
        progress: whether to show how far it is, on stderr.

    Raises:
        UsageError: the network's blocks are not known and no taps are given, or there are no images.
        ResultError: a feature is not finite.
    """
    network = deepcopy(module.student if isinstance(module, Distilled) else module)
    batches = list(torch.split(images, 64)) if isinstance(images, Tensor) else images
    count, first = _counted(batches)
    name = type(network).__name__
    tapped = network
    if isinstance(network, LiftStudent):
        names = tuple(f"tap {index}" for index in range(network.base.depth))
    else:
        tapped = tappable(network, taps, first, prefix_tokens, None, "network")
        given = tapped.taps if isinstance(tapped, GivenNetwork) else ()
        names = tuple(tap if isinstance(tap, str) else f"tap {index}" for index, tap in enumerate(given))
        names = names or tuple(f"blocks.{index}" for index in range(shape_of_taps(tapped).depth))
    root = Path(output) if output is not None else Path("runs") / f"analysis-{name}"
    bar = Progress(console=console_of(progress), transient=True)
    with bar:
        task = bar.add_task(f"reading {name}", total=count)
        result = measure_network(
            tapped.eval(),
            batches,
            names=names,
            label=name,
            arch=name,
            images=count,
            memory_bytes=AnalysisConfig().memory_mb * 10**6,
            device=make_accelerator(device).device,
            sample=f"{count:,} images that were given",
            advance=lambda done: bar.update(task, advance=done),
        )
    write(root / "analysis", [result])
    document: dict[str, Any] = json.loads((root / "analysis" / "analysis.json").read_text())
    return Analysis(document, root / "analysis")


def _counted(batches: Batches) -> tuple[int, Tensor]:
    """Return how many images the batches hold, and the first two of them.

    Raises:
        UsageError: there is none, or only a pass over them all would tell how many.
    """
    if not isinstance(batches, DataLoader | Sequence):
        raise UsageError("images are neither a tensor, a list of batches nor a DataLoader; give one of these.")
    batch = next(iter(batches), None)
    first = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(first, Tensor) or first.ndim != 4 or len(first) == 0:
        raise UsageError("there is no image to read; give float32 [N, 3, S, S], or batches of them.")
    return image_count(batches, len(first)), first[:2]
