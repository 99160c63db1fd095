"""Peak memory, disk and seconds of analysing a network over many images: ``measure_network`` alone, in a process apart.

    python benchmarks/analysis.py --memory 1000

What counts as the analysis is what the process holds at its peak beyond the model and the forward pass of one batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import timm
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.analysis.network import measure_network, tap_names
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import eval_input
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.models.build import input_size
from vitcompress.stages.models.names import resolve_architecture
from vitcompress.stages.training.memory import PeakMemory, release_unused

LAYER_SCALE, POSITIONS = 0.1, 0.3
HALF = (0.5, 0.5, 0.5)


def network(name: str, args: dict[str, Any]) -> nn.Module:
    """Random weights, the same ones each time, whose taps are about as hard to compress as a trained network's.

    As they begin training, CaiT's LayerScale (1e-5) leaves every tap as the first, and position embeddings (0.02) leave
    one direction in an enlarged digit. With the standard deviations here, matrices keeping the variance, 95 / 99 % of
    an image's energy need about 60 / 130 of CaiT-S24's 384 directions in the last tap (published, trained: 61 / 121).
    """
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(resolve_architecture(name), num_classes=1000, **args)
    for path, parameter in model.named_parameters():
        own = path.rpartition(".")[2]
        if own.startswith("gamma"):
            parameter.data.fill_(LAYER_SCALE)
        elif own == "pos_embed":
            parameter.data.normal_(std=POSITIONS)
        elif own == "weight" and parameter.ndim > 1:
            parameter.data.normal_(std=parameter[0].numel() ** -0.5)
    return model.eval().requires_grad_(False)


def digits(count: int, batch: int, size: int) -> Iterator[Tensor]:
    """Batches of real digits enlarged to ``size`` pixels, ``[batch, 3, size, size]``, made as they are asked for."""
    images = open_images(DataConfig(source="digits")).train
    transform = partial(eval_input, PreprocessSpec(size=size, mean=HALF, std=HALF))
    for start in range(0, count, batch):
        yield torch.stack([transform(images[i % len(images)][0]) for i in range(start, min(start + batch, count))])


def in_process_apart(name: str, args: dict[str, Any], images: int, batch: int, kept_bytes: float, threads: int) -> Any:
    """``measured`` in a fresh process."""
    wanted = json.dumps([name, args, images, batch, kept_bytes, threads])
    done = subprocess.run([sys.executable, __file__, wanted], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, args: dict[str, Any], images: int, batch: int, kept_bytes: float) -> dict[str, Any]:
    """Bytes and seconds of one analysis of every tap.

    Args:
        name: of the network.
        args: timm's, of it.
        images: how many are measured.
        batch: how many at a time.
        kept_bytes: memory that tokens may be kept in until all images are seen.

    Raises:
        SystemExit: this system does not tell peak memory or what a process wrote.
    """
    model = network(name, args)
    size = input_size(args, model)
    memory = PeakMemory(torch.device("cpu"))
    with torch.inference_mode():
        for _ in range(2):  # the first sets up what later ones share
            release_unused()
            memory.reset()
            model(next(digits(batch, batch, size)))
            bare = memory.read()
    release_unused()
    process: Any = psutil.Process()
    if bare is None or not hasattr(process, "io_counters"):
        raise SystemExit("this system does not tell peak memory and bytes written; use Linux.")
    names = tap_names(resolve_architecture(name), args)
    memory.reset()
    written = process.io_counters().write_chars  # to anything, the console included
    result = measure_network(
        model,
        digits(images, batch, size),
        names=names,
        label="model",
        arch=name,
        images=images,
        memory_bytes=kept_bytes,
        device="cpu",
        sample=f"{images} digits",
    )
    peak = memory.read()
    return {
        "images": images,
        "taps": len(result.taps),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "kept_images": [tap.kept for tap in result.taps],
        "kept_bytes": sum(4 * tap.kept * tap.tokens * tap.width for tap in result.taps),
        "peak_bytes": peak,
        "bare_forward_peak_bytes": bare,
        "written_bytes": process.io_counters().write_chars - written,
        "published_written_bytes": sum(4 * images * tap.tokens * tap.width for tap in result.taps),
        "forward_seconds": result.forward_seconds,
        "measure_seconds": result.measure_seconds,
    }


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    beyond = found["peak_bytes"] - found["bare_forward_peak_bytes"]
    first, last = found["kept_images"][0], found["kept_images"][-1]
    return (
        "| images | taps | memory beyond model and one batch's forward, peak | of it kept tokens | written to disk | "
        "the published way writes | forward | measuring |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        f"| {found['images']:,} | {found['taps']} | {beyond / 1e6:.0f} MB | {found['kept_bytes'] / 1e6:.0f} MB | "
        f"{found['written_bytes']:,} bytes | {found['published_written_bytes'] / 1e9:.2f} GB | "
        f"{found['forward_seconds']:.0f} s | {found['measure_seconds']:.0f} s |\n\n"
        f"{found['threads']} thread(s), batch {found['batch']}; until the end, tokens of {first:,} images are kept of "
        f"the first tap, of {last:,} of the last.\n"
    )


if __name__ == "__main__":
    *wanted, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    print(json.dumps(measured(*wanted)))
