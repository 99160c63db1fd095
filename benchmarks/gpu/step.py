"""Seconds of one step of distillation on this machine's device: a plain eager loop, and ours, row by row.

    python benchmarks/gpu/step.py --out step.json            # DeiT-Tiny <- CaiT-S24, 224 pixels, batch 256
    python benchmarks/gpu/step.py --out step.json --small    # tiny networks, for a machine without a GPU

`prove.py` starts it. The file is written anew after every row, so that what was measured stays when time runs out. Each
row of ours is stepped in turn with the plain loop of the same precision; ratios are of those pairs.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from step_variants import Setting, Step, context_of, networks, our_step, plain_step, settings_of

from gpu.rows import Rows, device_here, synchronise
from vitcompress.stages.models.build import cost_of, input_size
from vitcompress.stages.training.memory import PeakMemory

Precision = Literal["float32", "TF32", "bfloat16"]
FULL = ("cait_s24", "deit_tiny", 256)
SMALL = ("test_vit2", "test_vit", 8)
WARMUP = 3


@dataclass(frozen=True)
class Row:
    """One of our loops."""

    precision: Precision
    cached: bool
    compiled: bool

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"ours, {'cached' if self.cached else 'live'} teacher, {'compiled' if self.compiled else 'eager'}"


def rows(small: bool) -> list[Row]:
    """What `compress run` would do on a GPU first; compiled ones, which take a minute each, after all eager ones.

    ``small``: three that hold every kind, but TF32, which is a GPU's.
    """
    if small:
        return [Row("bfloat16", False, False), Row("float32", True, False), Row("float32", False, True)]
    order: tuple[Precision, ...] = ("bfloat16", "TF32", "float32")
    pairs = itertools.product((False, True), order, (False, True))
    return [Row(precision, cached, compiled) for compiled, precision, cached in pairs]


def used(precision: Precision) -> torch.dtype:
    """Set how float32 products are computed; what networks compute in."""
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "TF32"  # the patch embedding is a convolution
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def timed(step: Step, device: str) -> float:
    """Seconds of one step, all of it done."""
    synchronise(device)
    began = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - began


def steps(setting: Setting, size: int, row: Row, folder: Path) -> tuple[Step, Step]:
    """The plain loop and ours, ready."""
    precision = used(row.precision)
    name = "bfloat16" if precision == torch.bfloat16 else "float32"
    config = settings_of(setting, precision=name, teacher_precision=name)
    own = replace(setting, folder=folder)
    context = context_of(own, row.name)
    ours = our_step(own, config, size, context, cached=row.cached, compiled=row.compiled)
    return plain_step(setting, config, size, precision), ours


def measured(setting: Setting, size: int, count: int, small: bool) -> Iterator[dict[str, Any]]:
    """Every row, as it is measured."""
    for row in rows(small):
        with tempfile.TemporaryDirectory() as folder:
            plain, ours = steps(setting, size, row, Path(folder))
            memory = PeakMemory(torch.device(setting.device))
            first = timed(ours, setting.device)
            for _ in range(WARMUP):
                timed(plain, setting.device)
                timed(ours, setting.device)
            pairs = [(timed(plain, setting.device), timed(ours, setting.device)) for _ in range(count)]
            memory.reset()
            timed(ours, setting.device)
            peak = memory.read()
            memory.reset()
            timed(plain, setting.device)
            plain_peak = memory.read()
            ratios = sorted(a / b for a, b in pairs)
            yield {
                "loop": row.name,
                "precision": row.precision,
                "plain_seconds": statistics.median(a for a, _ in pairs),
                "seconds": statistics.median(b for _, b in pairs),
                "first_seconds": first,
                "faster": statistics.median(ratios),
                "faster_from": ratios[0],
                "faster_to": ratios[-1],
                "images_per_second": setting.batch / statistics.median(b for _, b in pairs),
                "peak_bytes": peak,
                "plain_peak_bytes": plain_peak,
                "steps": count,
            }
            del plain, ours
        torch.compiler.reset()
        if setting.device == "cuda":
            torch.cuda.empty_cache()


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--small", is_flag=True)
@click.option("--steps", "count", default=10, show_default=True)
def main(out: Path, small: bool, count: int) -> None:
    """Measure row after row."""
    teacher, student, batch = SMALL if small else FULL
    device = device_here()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(teacher, student, {}, batch, 3, Path(folder), device)
        both = networks(setting)
        size = input_size(setting.args, both[1])
        about = {"teacher": teacher, "student": student, "batch": batch, "pixels": size, "device": device}
        macs = dict(zip(("teacher", "student"), (cost_of(network, size).macs for network in both), strict=True))
        file = Rows(out, {**about, "macs": macs})
        for row in measured(setting, size, 3 if small else count, small):
            file.add(row)


if __name__ == "__main__":
    main()
