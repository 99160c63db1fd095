"""Peak memory, disk and seconds of analysing a network over many images: ``measure_network`` alone, in a process apart.

    python benchmarks/analysis.py --memory 1000

What counts as the analysis is what the process holds at its peak beyond the model and the forward pass of one batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import timm
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.preprocess import PreprocessSpec
from stages.analysis.measures.network import measure_network
from stages.images.config import DataConfig
from stages.images.loaders import EvalTransform
from stages.images.sources import open_images
from stages.models.names import resolve_architecture
from stages.training.memory import PeakMemory, release_unused

LAYER_SCALE = 0.1
HALF = (0.5, 0.5, 0.5)


def network(name: str, args: dict[str, Any]) -> nn.Module:
    """Random weights, the same ones each time.

    LayerScale is set to 0.1: CaiT begins at 1e-5, with which every tap would hold the first one's numbers.
    """
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(resolve_architecture(name), num_classes=1000, **args)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.rpartition(".")[2].startswith("gamma"):
            parameter.data.fill_(LAYER_SCALE)
    return model.eval().requires_grad_(False)


def digits(count: int, batch: int, size: int) -> Iterator[Tensor]:
    """Batches of real digits enlarged to ``size`` pixels, ``[batch, 3, size, size]``, made as they are asked for."""
    images = open_images(DataConfig(source="digits")).train
    transform = EvalTransform(PreprocessSpec(size=size, mean=HALF, std=HALF))
    for start in range(0, count, batch):
        yield torch.stack([transform(images[i % len(images)][0]) for i in range(start, min(start + batch, count))])


def in_process_apart(name: str, args: dict[str, Any], size: int, images: int, batch: int, threads: int) -> Any:
    """``measured`` in a fresh process."""
    wanted = json.dumps([name, args, size, images, batch, threads])
    done = subprocess.run([sys.executable, __file__, wanted], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, args: dict[str, Any], size: int, images: int, batch: int) -> dict[str, Any]:
    """Bytes and seconds of one analysis of every tap.

    Raises:
        SystemExit: this system does not tell peak memory or what a process wrote.
    """
    model = network(name, args)
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
    written = process.io_counters().write_chars
    memory.reset()
    result = measure_network(model, digits(images, batch, size))
    peak = memory.read()
    return {
        "images": images,
        "taps": len(result.taps),
        "peak_bytes": peak,
        "bare_forward_peak_bytes": bare,
        "written_bytes": process.io_counters().write_chars - written,
        "published_written_bytes": sum(4 * images * tap.tokens * tap.width for tap in result.taps),
        "forward_seconds": result.forward_seconds,
        "measure_seconds": result.measure_seconds,
    }


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    beyond = (found["peak_bytes"] - found["bare_forward_peak_bytes"]) / 1e6
    return (
        "| images | taps | peak memory beyond model and one batch's forward | written to disk | the published way writes "
        "| forward, s | measuring, s |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        f"| {found['images']:,} | {found['taps']} | {beyond:.0f} MB | {found['written_bytes']:,} bytes | "
        f"{found['published_written_bytes'] / 1e9:.2f} GB | {found['forward_seconds']:.0f} | "
        f"{found['measure_seconds']:.0f} |\n"
    )


if __name__ == "__main__":
    *wanted, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    print(json.dumps(measured(*wanted)))
