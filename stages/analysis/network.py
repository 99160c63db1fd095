"""A network over a sample of images: every layer's tap measured in one pass, nothing written to disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.results import Counts, NetworkResult, TapResult, kept_rows
from vitcompress.stages.analysis.sample import Sample
from vitcompress.stages.analysis.tap import TapMeasures
from vitcompress.stages.models.build import logits_and_taps
from vitcompress.stages.models.geometry import shape_by_name
from vitcompress.stages.models.students import final_norm
from vitcompress.stages.training.device import make_accelerator, torch_threads
from vitcompress.stages.training.monitor import Pace, progress_bar

CLOSELY = 50
"""Images, at most, that are looked at in the other ways at any tap but the last, which decides: that takes twice as
long as all else that is measured of an image."""


def tap_names(arch: str, args: dict[str, Any]) -> tuple[str, ...]:
    """Return ``block 0`` and so on for an isotropic architecture, ``stage 0`` and so on for a hierarchical one.

    A UsageError is raised if it has neither blocks nor stages, or timm refuses the arguments.
    """
    shape = shape_by_name(arch, args)
    return tuple(f"{'block' if shape.isotropic else 'stage'} {index}" for index in range(shape.depth))


def kept_images(sizes: Sequence[int], images: int, memory_bytes: float) -> list[Counts]:
    """Return which images' tokens each tap keeps, ascending indices, within a memory budget.

    The last tap, which decides on strategies, keeps all images where at least one is left for every other tap; these
    keep as many as fit in the rest, spread evenly, all of them the same ones. Where that cannot be, all taps keep the
    same images, as many as fit.

    ``sizes`` are bytes of one image's tokens in each tap, in order of depth; ``memory_bytes`` are for all together. A
    UsageError is raised if not even one image of each tap fits.
    """
    *others, last = sizes
    rest = int(memory_bytes) - images * last
    if rest >= sum(others):
        spread = kept_rows(images, rest // max(1, sum(others)))
        return [*[spread] * len(others), np.arange(images)]
    fitting = int(memory_bytes) // sum(sizes)
    if fitting < 1:
        raise UsageError(
            f"the analysis may keep {memory_bytes:,.0f} bytes of features in memory, but one image's alone are "
            f"{sum(sizes):,} bytes in {len(sizes)} layers; allow at least that."
        )
    return [kept_rows(images, fitting)] * len(sizes)


def read_network(
    network: nn.Module,
    spec: ModelSpec,
    preprocess: PreprocessSpec,
    sample: Sample,
    config: AnalysisConfig,
    context: Context,
    *,
    label: str,
    epoch: int | None = None,
) -> NetworkResult:
    """Measure every tap of a network of a run over ``sample``, on the run's device, where it ends up.

    ``network`` has its weights, and takes images prepared by ``preprocess``; ``label`` and ``epoch``: see
    NetworkResult. A ResultError is raised if a tap has values that are not finite, a DataError if an image cannot be
    read.
    """
    pace = Pace()
    with torch_threads(context.threads), progress_bar(context) as bar:
        task = bar.add_task(f"reading {label}", total=sample.count, rate="-")

        def advance(images: int) -> None:
            pace.images += images
            bar.update(task, advance=images, rate=f"{pace.rate:.0f}")

        return measure_network(
            network,
            sample.batches(preprocess, batch_size=config.batch_size, workers=context.workers),
            names=tap_names(spec.arch, spec.args),
            label=label,
            arch=spec.name,
            images=sample.count,
            memory_bytes=config.memory_mb * 10**6,
            device=make_accelerator(context.device).device,
            sample=sample.words,
            epoch=epoch,
            advance=advance,
        )


def measure_network(
    network: nn.Module,
    batches: Iterable[Any],
    *,
    names: tuple[str, ...],
    label: str,
    arch: str,
    images: int,
    memory_bytes: float,
    device: str | torch.device,
    sample: str,
    epoch: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> NetworkResult:
    """Run the network over the images, in float32 as it stands, and measure every layer's tap.

    ``network`` is anything that ``logits_and_taps`` can tap; it is moved to ``device`` and set to evaluation. The
    ``batches``, of ``images`` in all, are ``(images, labels)`` or images alone, float32 ``[B, 3, S, S]``, prepared for
    it. ``names`` are of the taps, one a layer (``tap_names``); ``memory_bytes`` are for tokens kept until all images
    are seen (``kept_images``). ``advance`` is called after every batch with its number of images. For the rest see
    NetworkResult. A ResultError is raised if another number of images than announced comes, or features are not finite,
    a UsageError if the memory does not suffice for one image.
    """
    device = torch.device(device)
    layers = tuple(range(len(names)))
    network.to(device).eval()
    measures: list[TapMeasures] = []
    seconds = {"forward": 0.0, "measure": 0.0}

    @contextmanager
    def timing(what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[what] += time.perf_counter() - start

    def update(measure: TapMeasures, tap: Tensor) -> None:
        with torch.inference_mode():  # a thread's own mode
            measure.update(tap.flatten(2).transpose(1, 2))

    def finish(measure: TapMeasures) -> TapResult:
        with torch.inference_mode():  # entropies are in the range of all taps
            return measure.finish(min(one.low for one in measures), max(one.high for one in measures))

    with side_by_side(device, len(layers), torch.get_num_threads()) as beside:
        for batch in batches:
            inputs: Tensor = batch[0] if isinstance(batch, (tuple, list)) else batch
            if len(inputs) == 0:
                continue
            with torch.inference_mode():
                with timing("forward"):
                    taps = logits_and_taps(network, inputs.to(device), layers)[1]
                with timing("measure"):
                    measures = measures or _begin(network, taps, names, images, memory_bytes)
                    list(beside(update, measures, taps))
            if advance is not None:
                advance(len(inputs))
        if not measures:
            raise ResultError(f"{label} was to be measured over {images} images, but none came.")
        with timing("measure"):
            results = tuple(beside(finish, measures))
    return NetworkResult(
        label=label,
        arch=arch,
        taps=results,
        sample=sample,
        forward_seconds=seconds["forward"],
        measure_seconds=seconds["measure"],
        epoch=epoch,
    )


def _begin(
    network: nn.Module, taps: list[Tensor], names: tuple[str, ...], images: int, memory_bytes: float
) -> list[TapMeasures]:
    keep = kept_images([4 * tap[0].numel() for tap in taps], images, memory_bytes)
    norm, width = final_norm(network) or (None, 0)
    norms = [norm if tap.shape[1] == width else None for tap in taps]
    closely = [*[CLOSELY] * (len(names) - 1), None]
    return [
        TapMeasures(layer, names[layer], images, keep[layer], norm=norms[layer], closely=closely[layer])
        for layer in range(len(names))
    ]


@contextmanager
def side_by_side(device: torch.device, taps: int, threads: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Give a ``map`` by ``threads`` threads, no more than ``taps``, that measure a tap each by one-thread operators.

    Operators on one image are too small to be shared out among threads; taps know nothing of each other, so the results
    do not depend on how many there are. On a GPU, and for one thread, ``map`` itself.
    """
    workers = min(threads, taps) if device.type == "cpu" else 1
    if workers == 1:
        yield map
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def beside(work: Callable[..., Any], *items: Iterable[Any]) -> list[Any]:
        with torch_threads(1):  # here too: what some libraries take is one number for all threads
            return list(pool.map(work, *items))

    try:
        yield beside
    finally:
        pool.shutdown(cancel_futures=True)  # what has begun is a matter of milliseconds
