"""Ways to run the frozen teacher, interleaved: as timm has it and with its talking heads rewritten; eager, compiled,
weights frozen, products autotuned, in bfloat16.

python benchmarks/teacher_forward.py            # about 5 minutes, most of it compiling
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import timm
import torch
from rich.console import Console
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.pipeline.machine import processor
from vitcompress.stages.models.names import resolve_architecture
from vitcompress.stages.models.talking_heads import freeze_talking_heads

AUTOTUNE = {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}


def ways(network: nn.Module, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each way of asking the network about the images."""

    def compiled(own: nn.Module, batch: Tensor, **options: Any) -> Callable[[], Tensor]:
        made: Any = torch.compile(copy.deepcopy(own), dynamic=False, **({"options": options} if options else {}))
        return lambda: made(batch)

    rewritten = copy.deepcopy(network)
    freeze_talking_heads(rewritten)
    short, short_images = copy.deepcopy(network).bfloat16(), images.bfloat16()
    short_rewritten = copy.deepcopy(rewritten).bfloat16()
    return {
        "eager": lambda: network(images),
        "compiled": compiled(network, images),
        "compiled, weights frozen": compiled(network, images, freezing=True),
        "compiled, weights frozen, products autotuned": compiled(network, images, **AUTOTUNE),
        "rewritten, eager": lambda: rewritten(images),
        "rewritten, compiled": compiled(rewritten, images),
        "bfloat16, eager": lambda: short(short_images),
        "bfloat16, compiled": compiled(short, short_images),
        "rewritten, bfloat16, compiled": compiled(short_rewritten, short_images),
    }


@click.command()
@click.option("--teacher", default="cait_s24", show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--rounds", default=8, show_default=True)
def main(teacher: str, batch: int, rounds: int) -> None:
    """Measure forward passes."""
    torch.manual_seed(0)
    network = timm.create_model(resolve_architecture(teacher), num_classes=1000).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if ".gamma_" in name:  # LayerScale begins near 0, where no difference between blocks would show
            parameter.fill_(0.1)
    images = torch.randn(batch, *network.default_cfg["input_size"])
    seconds: dict[str, list[float]] = {}
    calls = ways(network, images)
    with torch.inference_mode():
        answer = network(images)
        apart = {}
        for name, call in calls.items():
            apart[name] = float((call().float() - answer).abs().max())  # compiles, too
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    console = Console(width=120)
    lines = ["| way | seconds, median (least) | logits differ by |", "| --- | --- | --- |"]
    for name, own in seconds.items():
        lines.append(f"| {name} | {statistics.median(own):.3f} ({min(own):.3f}) | {apart[name]:.1e} |")
    machine = f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    lines.append(f"\n{teacher}, batch {batch}. {machine}, load average {os.getloadavg()[0]:.1f}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
