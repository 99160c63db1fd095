"""Read one network of a run: build it, send the sample through it, measure every tap."""

from __future__ import annotations

from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import measure_network, tap_names
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.analysis.sample import Sample
from vitcompress.stages.training.device import make_accelerator, torch_threads
from vitcompress.stages.training.monitor import Pace, progress_bar


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
    """Every tap of ``network`` over ``sample``, on the run's device.

    Args:
        network: with its weights; it ends up on the device.
        spec: what it was built from.
        preprocess: its own.
        sample: which images.
        config: batch size and memory.
        context: device, loader processes and threads.
        label: the network's name in tables and figures.
        epoch: see ``NetworkResult.epoch``.

    Raises:
        ResultError: a tap has values that are not finite.
        DataError: an image cannot be read.
    """
    device = make_accelerator(context.device).device
    batches = sample.batches(preprocess, batch_size=config.batch_size, workers=context.workers)
    pace = Pace()
    with torch_threads(context.threads), progress_bar(context) as bar:
        task = bar.add_task(f"reading {label}", total=sample.count, rate="-")

        def advance(images: int) -> None:
            pace.images += images
            bar.update(task, advance=images, rate=f"{pace.rate:.0f}")

        return measure_network(
            network.to(device),
            batches,
            names=tap_names(spec.arch, spec.args),
            label=label,
            arch=spec.arch,
            images=sample.count,
            memory_bytes=config.memory_mb * 10**6,
            device=device,
            sample=sample.words,
            epoch=epoch,
            advance=advance,
        )
