"""Networks of a caller's own: fold a lift, export, analyse."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.errors import ResultError, UsageError
from vitcompress.exporters import targets as known_targets
from vitcompress.pipeline.api.arguments import Analysis, PathLike, console_of
from vitcompress.pipeline.api.distilling import Distilled
from vitcompress.pipeline.api.given import Batches, as_given, image_count, shape_of_taps, tappable
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import measure_network
from vitcompress.stages.analysis.write import write
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.engines import compared
from vitcompress.stages.export.graphs import HeldOut
from vitcompress.stages.export.graphs import export_module as export_graph_of
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
    module: nn.Module | Distilled, output: PathLike, images: Tensor, targets: Sequence[str]
) -> tuple[Any, ...]:
    """Export a network for :func:`vitcompress.export`, rewritten exactly and compared with torch on the images."""
    network = (module.student if isinstance(module, Distilled) else module).eval()
    spec, root = as_given(images), Path(output)
    engines = [known_targets.get(one) for one in targets if one != "onnx"]
    for target in engines:
        target.require()
    config, given = ExportConfig(), HeldOut(images.numpy(), images.numpy(), spec)
    path = root / "student.onnx"
    graph = export_graph_of(config, network, cost_of(network, spec.size, spec.channels), given, path, root)
    worst = max(graph.max_logit_difference.values())
    if not worst <= config.tolerance:
        raise ResultError(
            f"{path} differs from torch by {worst:.3g} in logits, more than the tolerance {config.tolerance:g}; "
            "do not use it."
        )
    rewritten = partial(deployed, network, spec, config.input, rewrite=config.rewrites)
    options = known_targets.BuildOptions(root, module=lambda: rewritten().module, preprocess=spec)
    (root / "export").mkdir(exist_ok=True)  # where targets put their files
    built: list[Any] = [target.build(graph, options) for target in engines]
    return (graph, *(compared(config, *one, lambda: network, given, root) for one in zip(engines, built, strict=True)))


def analyze_module(
    module: nn.Module | Distilled,
    images: Tensor | Batches,
    *,
    taps: Sequence[Tap] | None = None,
    output: PathLike | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: bool = True,
) -> Analysis:
    """Read the features of a network, for :func:`vitcompress.analyze`."""
    network = deepcopy(module.student if isinstance(module, Distilled) else module)
    batches = list(torch.split(images, 64)) if isinstance(images, Tensor) else images
    count, first = _counted(batches)
    name = type(network).__name__
    tapped = network
    if isinstance(network, LiftStudent):
        names = tuple(f"tap {index}" for index in range(network.base.depth))
    else:
        tapped = tappable(network, taps, first, "network")
        given = tapped.taps if isinstance(tapped, GivenNetwork) else ()
        names = tuple(tap if isinstance(tap, str) else f"tap {index}" for index, tap in enumerate(given))
        names = names or tuple(f"blocks.{index}" for index in range(shape_of_taps(tapped).depth))
    root = Path(output) if output is not None else Path("runs") / f"analysis-{name}"
    shown = console_of(progress)
    bar = Progress(console=shown, transient=True, disable=not shown.is_interactive)
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
    return Analysis.of(root / "analysis")


def _counted(batches: Batches) -> tuple[int, Tensor]:
    """Return how many images the batches hold, and the first two; a UsageError is raised where that cannot be told."""
    if not isinstance(batches, DataLoader | Sequence):
        raise UsageError("images are neither a tensor, a list of batches nor a DataLoader; give one of these.")
    batch = next(iter(batches), None)
    first = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(first, Tensor) or first.ndim != 4 or len(first) == 0:
        raise UsageError("there is no image to read; give float32 [N, C, S, S], or batches of them.")
    return image_count(batches, len(first)), first[:2]
