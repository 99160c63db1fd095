"""Which of a lift's two graphs is deployed: the projector kept, or folded away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import OnnxArtifact
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import FoldRecord, Graph
from vitcompress.exporters.latency import Call, measure_sessions, physical_cores, pinned, speedup_interval
from vitcompress.exporters.runners import OnnxRunner, provider_for
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.training.device import make_accelerator

_SECONDS, _TIGHT, _BOOTSTRAP = 6.0, 0.01, 2000


def choose_graph(
    config: ExportConfig,
    fold: FoldRecord,
    student: dict[Graph, OnnxArtifact],
    given: NDArray[Any],
    context: Context,
) -> tuple[Graph, str]:
    """Return which student graph is deployed, and why; ``given`` are images as the graphs take them.

    A ResultError is raised where folding was asked for and is less exact than ``fold.tolerance``, an
    EnvironmentLacksError where both are to be timed on a GPU that ONNX Runtime does not have.
    """
    if "lift-folded" not in student:
        return next(iter(student)), "the strategy has one graph"
    if config.projector == "keep":
        return "lift-kept", "asked for with projector: keep"
    difference = fold.max_logit_difference
    if difference is None or not difference <= fold.tolerance:
        inexact = f"folding changes logits by {difference:.3g}, more than fold.tolerance {fold.tolerance:g}"
        if config.projector == "fold":
            raise ResultError(f"{inexact}; deploy the projector with --projector keep.")
        return "lift-kept", inexact
    if config.projector == "fold":
        return "lift-folded", f"asked for with projector: fold; logits change by {difference:.2g}"
    device = make_accelerator(context.device).device.type
    paths = {graph: context.run.root / artifact.file.path for graph, artifact in student.items()}
    ratio, low, high = _folding_speedup(paths, np.ascontiguousarray(given[:1]), device)
    measured = (
        f"it runs {ratio:.3f}x [{low:.3f}, {high:.3f}] as fast as kept at batch 1 in ONNX Runtime on the {device}"
    )
    # Without a difference that can be told from noise, the smaller and simpler graph.
    return ("lift-kept", f"folded, {measured}") if high < 1 else ("lift-folded", measured)


def _folding_speedup(paths: dict[Graph, Path], image: NDArray[Any], device: str) -> tuple[float, float, float]:
    """Return the speed-up of the folded graph at batch 1, measured as in verification, with its 95 % interval."""
    threads = physical_cores()

    @contextmanager
    def opened(path: Path) -> Iterator[Call]:
        with OnnxRunner(path, threads=threads, providers=provider_for(device)) as runner:
            yield partial(runner.infer, image)

    openers = {str(graph): partial(opened, path) for graph, path in paths.items()}
    with pinned(threads):
        medians = measure_sessions(openers, _SECONDS, reference="lift-kept", tight=_TIGHT).medians
    return speedup_interval(medians["lift-kept"], medians["lift-folded"], _BOOTSTRAP, seed=0)
