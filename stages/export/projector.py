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
from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.core.records import FoldRecord, Graph
from vitcompress.core.words import counted
from vitcompress.exporters.latency import Call, Opener, measure_sessions, physical_cores, pinned, speedup_interval
from vitcompress.exporters.runners import PROVIDERS, OnnxRunner, Provider, provider_for
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.training.device import make_accelerator

_AUTO_SECONDS = 6.0
_AUTO_TIGHT = 0.01
_AUTO_BOOTSTRAP = 2000


def choose_graph(
    config: ExportConfig,
    fold: FoldRecord,
    student: dict[Graph, OnnxArtifact],
    given: NDArray[Any],
    context: Context,
) -> tuple[Graph, str]:
    """Return which student graph is deployed, and why.

    Args:
        given: images as the graphs take them.

    Raises:
        ResultError: folding was asked for, and is less exact than ``fold.tolerance``.
    """
    if "lift-folded" not in student:
        return next(iter(student)), "the strategy has one graph"
    difference = fold.max_logit_difference
    exact = difference is not None and difference <= fold.tolerance
    inexact = f"folding changes logits by {difference:.3g}, more than fold.tolerance {fold.tolerance:g}"
    if config.projector == "keep":
        return "lift-kept", "asked for with projector: keep"
    if config.projector == "fold":
        if not exact:
            raise ResultError(f"{inexact}; deploy the projector with --projector keep.")
        return "lift-folded", f"asked for with projector: fold; logits change by {difference:.2g}"
    if not exact:
        return "lift-kept", inexact
    provider, threads = provider_for(make_accelerator(context.device).device.type), physical_cores()
    paths = {graph: context.run.root / artifact.file.path for graph, artifact in student.items()}
    try:
        ratio, low, high = _folding_speedup(paths, given, provider, threads)
    except EnvironmentLacksError as error:
        return "lift-folded", f"not timed against lift-kept ({error})"
    measured = (
        f"it runs {ratio:.3f}x [{low:.3f}, {high:.3f}] as fast as kept at batch 1 in ONNX Runtime "
        f"({PROVIDERS[provider]}, {counted(threads, 'thread')}, 95 % interval)"
    )
    # Without a difference that can be told from noise, the smaller and simpler graph.
    return ("lift-kept", f"folded, {measured}") if high < 1 else ("lift-folded", measured)


def _folding_speedup(
    paths: dict[Graph, Path], given: NDArray[Any], provider: Provider, threads: int
) -> tuple[float, float, float]:
    """Return speed-up of the folded graph at batch 1, measured in sessions as in verification, and its 95 % interval.

    Raises:
        EnvironmentLacksError: the provider is not active here.
    """
    one = np.ascontiguousarray(given[:1])

    @contextmanager
    def opened(path: Path) -> Iterator[Call]:
        with OnnxRunner(path, threads=threads, providers=provider) as runner:
            yield partial(runner.infer, one)

    openers: dict[str, Opener] = {graph: partial(opened, path) for graph, path in paths.items()}
    with pinned(threads):
        medians = measure_sessions(openers, _AUTO_SECONDS, reference="lift-kept", tight=_AUTO_TIGHT).medians
    return speedup_interval(medians["lift-kept"], medians["lift-folded"], _AUTO_BOOTSTRAP, seed=0)
