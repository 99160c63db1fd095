"""One step of distillation: this project's loop against a plain eager one, interleaved in one run.

    python benchmarks/distill_step.py    # the tables of docs/performance-step.md, about 10 minutes on 2 cores
    python benchmarks/distill_step.py --batch 4 --rounds 3

The plain loop is the published recipe written down as it is read: the last layer's tap, soft logits and spectral
loss, AdamW, PyTorch as it comes. Ours is the training loop of `compress run` itself, with all that it adds (averaged
weights, gradient norm, checks, metrics). Every round runs two steps of each variant, in an order drawn anew, then a
matrix product and a copy, which tell what the machine could do at that moment. The second of the two steps is timed:
the first one brings the variant's own weights back into the processor's caches, where a training's last step left them.

What a step is made of: the models' arithmetic (teacher, student forward, backward, losses), measured against the
matrix product; updating the weights (AdamW, the gradient's norm, the averaged weights), which moves every weight a
fixed number of times and is measured against the copy; and everything else, which is what the loop itself costs.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import psutil
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from step_variants import CACHED, PLAIN, VARIANTS, Setting, make, networks

from vitcompress.pipeline.machine import processor
from vitcompress.stages.models.build import cost_of, input_size
from vitcompress.stages.training.memory import PeakMemory, release_unused

ALLOWED_DIFFERENCE = 1e-3
MODEL_PARTS = ("teacher", "student forward", "backward", "losses")
UPDATE_PARTS = ("optimizer", "averaged weights")
ADAMW, NORM, AVERAGE = 7, 1, 3
"""Reads and writes of every weight: AdamW reads and writes weight and two moments and reads the gradient; its norm
reads the gradient, which is not written where nothing is clipped; averaging reads two and writes one."""


def gemm_rate(side: int = 1024) -> float:
    """GFLOP/s of one float32 matrix product, now."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    started = time.perf_counter()
    for _ in range(3):
        torch.mm(a, b)
    return 3 * 2 * side**3 / (time.perf_counter() - started) / 1e9


def copy_rate(megabytes: int = 128) -> float:
    """GB/s that a copy moves (reads and writes), now."""
    source = torch.ones(megabytes * 2**18)
    target = torch.zeros_like(source)
    started = time.perf_counter()
    for _ in range(2):
        target.copy_(source)
    return 2 * 2 * source.numel() * 4 / (time.perf_counter() - started) / 1e9


def measure(setting: Setting, size: int, rounds: int, warmup: int) -> dict[str, Any]:
    """Interleaved steps of every variant.

    Raises:
        SystemExit: the variants do not compute the same losses.
    """
    steps = {variant: make(variant, setting, size) for variant in VARIANTS}
    order = random.Random(0)  # noqa: S311 - an order, no secret
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    parts: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    losses: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    rates, copies = [], []
    for number in range(warmup + rounds):
        for variant in order.sample(VARIANTS, len(VARIANTS)):
            before, _ = steps[variant]()
            started = time.perf_counter()
            loss, spent = steps[variant]()
            took = time.perf_counter() - started
            losses[variant] += [float(before), float(loss)]
            if number >= warmup:
                seconds[variant].append(took)
                parts[variant].append(spent)
        if number >= warmup:
            rates.append(gemm_rate())
            copies.append(copy_rate())
    apart = {
        variant: max(abs(a - b) for a, b in zip(losses[PLAIN], losses[variant], strict=True)) for variant in VARIANTS
    }
    if not max(apart.values()) <= ALLOWED_DIFFERENCE:
        raise SystemExit(f"the losses differ, by more than {ALLOWED_DIFFERENCE:g}: no ratio is printed ({apart})")
    return {
        "seconds": seconds,
        "parts": parts,
        "gemm_gflops": rates,
        "copy_gb_per_second": copies,
        "largest_loss_difference": apart,
    }


def interval(values: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    generator = random.Random(0)  # noqa: S311
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]


def peak_memory(setting: Setting, variant: str) -> int:
    """Peak resident bytes of a step, each variant in a process of its own."""
    arguments = [sys.executable, __file__, "--peak-of", variant, "--batch", str(setting.batch)]
    arguments += ["--teacher", setting.teacher, "--student", setting.student, "--args", json.dumps(setting.args)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def operations(setting: Setting) -> dict[str, float]:
    """Floating-point operations of a step's model arithmetic: teacher forward, student forward and backward."""
    teacher, student = networks(setting)
    once = {name: 2.0 * cost_of(model, input_size(setting.args, model)).macs for name, model in
            (("teacher", teacher), ("student", student))}  # fmt: skip
    return {"teacher": once["teacher"] * setting.batch, "student": 3 * once["student"] * setting.batch}


def medians(found: dict[str, Any], variant: str) -> dict[str, float]:
    """Median seconds of each part of a variant's step, and of the whole."""
    names = ("data", *MODEL_PARTS, *UPDATE_PARTS)
    parts = {name: statistics.median(step.get(name, 0.0) for step in found["parts"][variant]) for name in names}
    return {**parts, "step": statistics.median(found["seconds"][variant])}


def shares(found: dict[str, Any], variant: str) -> tuple[float, float]:
    """Of a step, percent: all but models and update; all but models. Medians over the steps."""
    loop, beside = [], []
    for seconds, parts in zip(found["seconds"][variant], found["parts"][variant], strict=True):
        models, update = (sum(parts.get(name, 0.0) for name in names) for names in (MODEL_PARTS, UPDATE_PARTS))
        loop.append(100 * (seconds - models - update) / seconds)
        beside.append(100 * (seconds - models) / seconds)
    return statistics.median(loop), statistics.median(beside)


def show(setting: Setting, found: dict[str, Any], peaks: dict[str, int], console: Console) -> None:
    """The two tables of one batch size, as markdown."""
    arithmetic = operations(setting)
    weights = sum(parameter.numel() for parameter in networks(setting)[1].parameters())
    gemm, copy = (statistics.median(found[name]) for name in ("gemm_gflops", "copy_gb_per_second"))
    lines = [
        f"{setting.student} <- {setting.teacher}, batch {setting.batch}, {len(found['gemm_gflops'])} rounds; "
        f"GEMM 1024^3 float32 {gemm:.0f} GFLOP/s "
        f"({min(found['gemm_gflops']):.0f} to {max(found['gemm_gflops']):.0f}), copy {copy:.1f} GB/s.",
        "",
        "| loop | seconds a step | speed-up [95 %] | the loop itself | with the update of the weights | of GEMM rate | "
        "update, of copy rate | peak memory | losses differ by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant in VARIANTS:
        part = medians(found, variant)
        ratios = [a / b for a, b in zip(found["seconds"][PLAIN], found["seconds"][variant], strict=True)]
        low, high = interval(ratios)
        models, update = (sum(part[name] for name in names) for names in (MODEL_PARTS, UPDATE_PARTS))
        loop, beside = shares(found, variant)
        work = arithmetic["student"] + (0.0 if variant == CACHED else arithmetic["teacher"])
        moved = 4e-9 * weights * (ADAMW if variant == PLAIN else ADAMW + NORM + AVERAGE)
        lines.append(
            f"| {variant} | {part['step']:.3f} | {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] | "
            f"{loop:.1f} % | {beside:.1f} % | {100 * work / models / 1e9 / gemm:.0f} % | "
            f"{100 * moved / update / copy:.0f} % | "
            + (f"{peaks[variant] / 1e9:.2f} GB | " if variant in peaks else "not measured | ")
            + f"{found['largest_loss_difference'][variant]:.1e} |"
        )
    columns = ("data", *MODEL_PARTS, *UPDATE_PARTS)
    lines += ["", f"| milliseconds | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for variant in VARIANTS:
        part = medians(found, variant)
        lines.append(f"| {variant} | {' | '.join(f'{1000 * part[name]:.1f}' for name in columns)} |")
    console.print("\n".join(lines) + "\n", highlight=False, markup=False, soft_wrap=True)


@click.command()
@click.option("--teacher", default="cait_s24", show_default=True)
@click.option("--student", default="deit_tiny", show_default=True)
@click.option("--args", default="{}", help="timm arguments of both, as JSON.", show_default=True)
@click.option("--batch", "batch_sizes", multiple=True, type=int, default=(4, 8), show_default=True)
@click.option("--rounds", default=12, show_default=True)
@click.option("--warmup", default=2, show_default=True, help="Rounds before measuring; compiling happens there.")
@click.option("--peak/--no-peak", default=True, show_default=True, help="Measure peak memory, in processes apart.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write every measurement there.")
@click.option("--peak-of", hidden=True)
def main(
    teacher: str,
    student: str,
    args: str,
    batch_sizes: tuple[int, ...],
    rounds: int,
    warmup: int,
    peak: bool,
    json_path: Path | None,
    peak_of: str | None,
) -> None:
    """Measure steps of distillation."""
    console = Console(width=200)
    results = {}
    for batch in batch_sizes:
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(teacher, student, json.loads(args), batch, warmup + rounds, Path(folder))
            size = input_size(setting.args, networks(setting)[1])
            if peak_of:
                print(one_peak(peak_of, setting, size))
                return
            found = measure(setting, size, rounds, warmup)
            peaks = {variant: peak_memory(setting, variant) for variant in VARIANTS} if peak else {}
            show(setting, found, peaks, console)
            results[batch] = {**found, "peak_bytes": peaks, "operations": operations(setting)}
    machine = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": psutil.getloadavg(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    console.print(f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, torch "
                  f"{machine['torch']}; load average {machine['load'][0]:.1f} at the end", highlight=False)  # fmt: skip
    if json_path:
        json_path.write_text(json.dumps({"machine": machine, "command": sys.argv, "batches": results}, indent=1) + "\n")


def one_peak(variant: str, setting: Setting, size: int) -> int:
    """Peak resident bytes of the third step of one variant."""
    step = make(variant, setting, size)
    step()
    step()
    memory = PeakMemory(torch.device("cpu"))
    release_unused()  # what building and compiling took and gave back is not the step's
    memory.reset()
    step()
    peak = memory.read()
    if peak is None:
        raise SystemExit("peak memory cannot be told on this system")
    return peak


if __name__ == "__main__":
    main()
