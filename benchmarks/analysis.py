"""The feature analysis: what `compress analyze` measures against the published procedure, on the same features.

    python benchmarks/analysis.py --memory 1000 --json benchmarks/results/analysis.json   # docs/performance-analysis.md

The published procedure (``analysis_published.py``) writes the features of every layer to disk and goes through them in
NumPy; ours measures while the network runs, and measures more (sorted energies, participation, random orders of the
channels). Every round runs each once, in an order drawn anew, over the taps of a network with random weights that reads
real digits, enlarged. Nothing is compared in time unless the numbers are equal; if they are not, the exit code is 1.

The published way has the threads of its BLAS, or one of them where that is faster; rows beneath it tell what is left
of the ratio when parts that could be done better in NumPy too are taken out of it, though not out of ours.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import analysis_compare
import analysis_memory
import click
import numpy as np
import psutil
import torch
from analysis_published import PARTS, Features, PublishedTap, analyse, seconds_of_values
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distill_step import interval

from vitcompress.core.machine import usable_cores
from vitcompress.pipeline.machine import environment
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import measure_network
from vitcompress.stages.analysis.results import TapResult
from vitcompress.stages.models.build import input_size, logits_and_taps
from vitcompress.stages.models.geometry import shape_of

VALUES_ONLY = "singular values only"
VARIANTS: dict[str, Callable[[dict[str, float]], float]] = {
    "as published": lambda parts: sum(parts[part] for part in PARTS),
    "nothing written or read": lambda parts: sum(parts[part] for part in PARTS[2:]),
    "without the entropy": lambda parts: sum(parts[part] for part in PARTS if part != "entropy"),
    VALUES_ONLY: lambda parts: sum(parts[VALUES_ONLY if part == "SVD" else part] for part in PARTS),
    "all three": lambda parts: parts[VALUES_ONLY] + parts["PCA"] + parts["FFT"] + parts["magnitude"],
}
"""Seconds of the published way, of the seconds of its parts: as it is, and with less."""


@contextmanager
def using(threads: int, blas: int | None = None) -> Iterator[None]:
    """``threads`` for torch, ``blas`` (default: as many) for NumPy."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(blas or threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Sample:
    """Features of every tap, the same for both."""

    features: list[Features]
    """``[n, N, D]`` of each."""
    batch: int


def sample(model: nn.Module, images: int, batch: int, size: int, taps: tuple[int, ...]) -> Sample:
    """The taps of a network over real digits."""
    found: list[list[Tensor]] = []
    with torch.inference_mode():
        for x in analysis_memory.digits(images, batch, size):
            found.append([tap.flatten(2).transpose(1, 2) for tap in logits_and_taps(model, x, taps)[1]])
    return Sample([torch.cat(tap).contiguous().numpy() for tap in zip(*found, strict=True)], batch)


def published(given: Sample) -> tuple[list[PublishedTap], dict[str, float]]:
    """The published numbers, and seconds by part, the SVD without its vectors besides."""
    with tempfile.TemporaryDirectory() as folder:
        taps, parts = analyse(given.features, Path(folder))
    return taps, {**parts, VALUES_ONLY: seconds_of_values(given.features)}


class Replay(nn.Module):
    """A network that has run already: asked for its taps, it gives those of a sample, as timm would, at no cost."""

    def __init__(self, given: Sample) -> None:
        super().__init__()
        self.taps = [torch.from_numpy(tap).mT.contiguous()[..., None] for tap in given.features]

    def forward_intermediates(self, x: Tensor, indices: list[int], **_: Any) -> tuple[Tensor, list[Tensor]]:
        """The taps ``[B, D, N, 1]`` of the images whose numbers stand in ``x``, and nothing else."""
        return x, [self.taps[index][int(x[0]) : int(x[-1]) + 1] for index in indices]

    def forward_head(self, x: Tensor) -> Tensor:
        """Nothing: no logits are asked for."""
        return x


def ours(given: Sample, network: Replay) -> tuple[Sequence[TapResult], float]:
    """Our numbers, and seconds of all but the forward pass. No image is left out of the second phase."""
    images = len(given.features[0])
    started = time.perf_counter()
    found = measure_network(
        network,
        torch.arange(images).split(given.batch),
        names=tuple(f"tap {layer}" for layer in range(len(given.features))),
        label="model",
        arch="replayed",
        images=images,
        memory_bytes=sum(tap.nbytes for tap in given.features),
        device="cpu",
        sample="a benchmark's",
    )
    return found.taps, time.perf_counter() - started


def measure(given: Sample, rounds: int, threads: int) -> dict[str, Any]:
    """Interleaved rounds of both, after one of ours and one tap of the published way that are not counted.

    Returns:
        seconds and parts of each round, and the last numbers of both.
    """
    order = random.Random(0)  # noqa: S311 - an order, no secret
    network = Replay(given)
    with using(threads):
        ours(given, network)
    tried, few = {}, Sample([given.features[-1][: given.batch]], given.batch)
    for blas in sorted({1, threads}):
        with using(threads, blas):
            tried[blas] = VARIANTS["as published"](published(few)[1])
    blas = min(tried, key=lambda count: tried[count])
    parts, seconds = [], []  # of the published way, of ours
    for _ in range(rounds):
        for who in order.sample(("published", "ours"), 2):
            if who == "ours":
                with using(threads):
                    own, took = ours(given, network)
                seconds.append(took)
            else:
                with using(threads, blas):
                    theirs, spent = published(given)
                parts.append(spent)
    return {"blas": blas, "blas_tried": tried, "parts": parts, "ours": seconds, "numbers": (theirs, own)}


def forward(model: nn.Module, batches: Sequence[Tensor], taps: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """Seconds of the bare forward pass and of the one that keeps every tap, interleaved."""
    ways: dict[str, Callable[[Tensor], Any]] = {
        "bare": model,
        "with taps": lambda x: logits_and_taps(model, x, taps),
    }
    order = random.Random(0)  # noqa: S311
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name in order.sample(list(ways), 2):
                started = time.perf_counter()
                for x in batches:
                    ways[name](x)
                if number:
                    seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Median of the rounds' ratios, with its interval."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]"


def speed_table(found: dict[str, Any]) -> str:
    """Both ways and what they are made of, as Markdown."""
    own = found["ours"]
    lines = ["| published, as it is or with less | seconds | ours, with everything | ratio [95 %] |"]
    lines.append("| --- | --- | --- | --- |")
    for name, total in VARIANTS.items():
        theirs = [total(parts) for parts in found["parts"]]
        seconds = f"{statistics.median(theirs):.2f} | {statistics.median(own):.2f}"
        lines.append(f"| {name} | {seconds} | {ratio(theirs, own)} |")
    columns = (*PARTS, VALUES_ONLY)
    lines += ["", f"| seconds | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    values = [statistics.median(parts[name] for parts in found["parts"]) for name in columns]
    lines.append(f"| published | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines) + "\n"


def forward_table(seconds: dict[str, list[float]]) -> str:
    """The forward pass apart, as Markdown."""
    bare, tapped = seconds["bare"], seconds["with taps"]
    return (
        "| forward, bare | with every tap | ratio [95 %] |\n| --- | --- | --- |\n"
        f"| {statistics.median(bare):.2f} s | {statistics.median(tapped):.2f} s | {ratio(tapped, bare)} |\n"
    )


def directions(taps: Sequence[TapResult]) -> str:
    """What the features are like: directions for 95 % of an image's energy, to show that they are no noise."""
    first, last = (np.median(tap.rank[:, 2]) for tap in (taps[0], taps[-1]))
    found = f"{first:.0f} directions of the first tap and {last:.0f} of the last"
    return f"95 % of an image's energy lies in {found}, of {taps[-1].width} (medians).\n"


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    name: str
    args: dict[str, Any]
    images: int
    batch: int
    rounds: int


def compared(setting: Setting, threads: Sequence[int]) -> dict[str, Any]:
    """Measure and show both ways and the forward pass, for each number of threads.

    Raises:
        SystemExit: the numbers differ.
    """
    model = analysis_memory.network(setting.name, setting.args)
    size = input_size(setting.args, model)
    taps = tuple(range(shape_of(model, setting.name).depth))
    given = sample(model, setting.images, setting.batch, size, taps)
    batches = list(analysis_memory.digits(setting.images, setting.batch, size))
    shapes = " x ".join(str(length) for length in given.features[-1].shape[1:])
    click.echo(
        f"{setting.name}, {setting.images} images in batches of {setting.batch}, {len(taps)} taps, last {shapes}."
    )
    results = {}
    for count in threads:
        found = measure(given, setting.rounds, count)
        theirs, own = found.pop("numbers")
        rows = analysis_compare.compare(theirs, own)
        if not all(row.agrees for row in rows):
            click.echo(analysis_compare.table(rows))
            raise SystemExit("the numbers differ: no ratio is told.")
        with using(count):
            found["forward"] = forward(model, batches, taps, setting.rounds)
        blas = "" if found["blas"] == count else f" (the published way with {found['blas']}: that is faster)"
        click.echo(f"\n{count} thread(s){blas}, {setting.rounds} rounds:\n\n{speed_table(found)}")
        click.echo(forward_table(found["forward"]))
        results[str(count)] = {**found, "differences": [vars(row) for row in rows]}
    click.echo(f"{analysis_compare.table(rows)}\n{directions(own)}")
    return results


@click.command()
@click.option("--model", "name", default="cait_s24", show_default=True)
@click.option("--args", default="{}", help="timm arguments, as JSON.", show_default=True)
@click.option("--images", default=64, show_default=True, help="Images a round.")
@click.option("--batch", default=4, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", multiple=True, type=int, help="One table each.  [default: 1 and every core]")
@click.option("--memory", default=0, metavar="IMAGES", help="Also measure memory over so many, in a process apart.")
@click.option(
    "--kept",
    default=AnalysisConfig().memory_mb,
    show_default=True,
    metavar="MB",
    help="Of --memory: for tokens kept to the end.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write every measurement there.")
def main(
    name: str,
    args: str,
    images: int,
    batch: int,
    rounds: int,
    threads: tuple[int, ...],
    memory: int,
    kept: int,
    json_path: Path | None,
) -> None:
    """Measure the feature analysis."""
    load = psutil.getloadavg()[0]
    setting = Setting(name, json.loads(args), images, batch, rounds)
    counts = sorted(set(threads)) or sorted({1, usable_cores()})
    results = compared(setting, counts)
    apart = (
        analysis_memory.in_process_apart(name, setting.args, memory, batch, kept * 1e6, counts[-1]) if memory else None
    )
    if apart:
        click.echo(analysis_memory.table(apart))
    machine = {**environment(), "load_before": load, "load_after": psutil.getloadavg()[0]}
    loads = f"load average {load:.1f} before, {machine['load_after']:.1f} after"
    click.echo(f"{machine['processor']}, {machine['cores']} cores; {loads}")
    if json_path:
        written = {"machine": machine, "command": sys.argv, "threads": results, "memory": apart}
        json_path.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
