"""Seconds of one step of distillation on this machine's device: a plain eager loop, and ours, row by row.

    python benchmarks/gpu/step.py --out step.json            # DeiT-Tiny <- CaiT-S24, 224 pixels, batch 256
    python benchmarks/gpu/step.py --out step.json --small    # tiny networks, for a machine without a GPU

`prove.py` starts it. The file is written anew after every row, so that what was measured stays when time runs out. Each
row of ours is stepped in turn with the plain loop of the same precision, a few steps at a time that nothing waits
between; ratios are of those pairs. Rows "without" something tell what it gives.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from step_variants import WITHOUT, Setting, Step, context_of, networks, our_step, plain_step, settings_of

from gpu.rows import Rows, device_here, synchronise
from vitcompress.stages.models.build import cost_of, input_size
from vitcompress.stages.training.device import fast_products
from vitcompress.stages.training.memory import PeakMemory

Precision = Literal["float32", "TF32", "bfloat16"]
FULL = ("cait_s24", "deit_tiny", 256)
SMALL = ("test_vit2", "test_vit", 8)
WARMUP = 1
TOGETHER = 4
"""Steps that are timed together, from one wait for the device to the next."""


@dataclass(frozen=True)
class Row:
    """One of our loops."""

    precision: Precision
    cached: bool
    compile: Literal["off", "on", "graphs"]
    without: str = ""

    @property
    def name(self) -> str:
        """As the table has it."""
        way = {"off": "eager", "on": "compiled", "graphs": "compiled with CUDA graphs"}[self.compile]
        less = f", without {self.without}" if self.without else ""
        return f"ours, {'cached' if self.cached else 'live'} teacher, {way}{less}"


def rows(small: bool) -> list[Row]:
    """What `compress run` would do on a GPU first; compiled ones, which take a minute each, after all eager ones.

    ``small``: those that hold every kind, but TF32 and graphs, which are a GPU's.
    """
    if small:
        first, *others = Row("bfloat16", False, "off"), Row("float32", True, "off"), Row("float32", False, "on")
        return [first, replace(first, without=WITHOUT[-1]), *others]
    order: tuple[Precision, ...] = ("bfloat16", "TF32", "float32")
    eager = [Row(precision, cached, "off") for precision, cached in itertools.product(order, (False, True))]
    less = [Row("bfloat16", False, "off", without) for without in WITHOUT]
    compiled = [replace(row, compile="on") for row in eager]
    late = Row("bfloat16", False, "on", WITHOUT[0])
    return [*eager, *less, compiled[0], late, Row("bfloat16", False, "graphs"), *compiled[1:]]


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Compute float32 products as a row does, within the block."""
    with fast_products(torch.device("cuda" if precision == "TF32" else "cpu")):
        yield


def timed(step: Step, device: str, count: int = TOGETHER) -> float:
    """Seconds of a step, of so many that are begun one after the other, all of it done."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(count):
        step()
    synchronise(device)
    return (time.perf_counter() - began) / count


def steps(setting: Setting, size: int, row: Row, folder: Path) -> tuple[Step, Step]:
    """The plain loop and ours, ready."""
    precision = torch.bfloat16 if row.precision == "bfloat16" else torch.float32
    name = "bfloat16" if precision == torch.bfloat16 else "float32"
    config = settings_of(setting, precision=name, teacher_precision=name, compile=row.compile)
    own = replace(setting, folder=folder)
    context = context_of(own, row.name)
    ours = our_step(own, config, size, context, cached=row.cached, compiled=config.compiles, without=row.without)
    return plain_step(setting, config, size, precision), ours


def measured(setting: Setting, size: int, count: int, small: bool) -> Iterator[dict[str, Any]]:
    """Every row, as it is measured."""
    for row in rows(small):
        with tempfile.TemporaryDirectory() as folder, products(row.precision):
            plain, ours = steps(setting, size, row, Path(folder))
            memory = PeakMemory(torch.device(setting.device))
            first = timed(ours, setting.device, 1)
            for _ in range(WARMUP):
                timed(plain, setting.device)
                timed(ours, setting.device)
            pairs = [(timed(plain, setting.device), timed(ours, setting.device)) for _ in range(count)]
            memory.reset()
            timed(ours, setting.device, 1)
            peak = memory.read()
            memory.reset()
            timed(plain, setting.device, 1)
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
                "steps": count * TOGETHER,
            }
            del plain, ours
        torch.compiler.reset()
        if setting.device == "cuda":
            torch.cuda.empty_cache()


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--small", is_flag=True)
@click.option("--pairs", "count", default=5, show_default=True)
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
