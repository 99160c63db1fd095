"""The cost model of `compress run --dry-run --on` against trainings of 1, 2 and 4 processes on this machine.

    python benchmarks/scale.py --out benchmarks/results/scale.md       # about 4 minutes on 2 quiet cores

Three small distillations, each long in another part of a step: the networks, the exchange of gradients, the loader. The
processes train, and before and after every epoch they measure each part alone, all of them at once, as they share the
cores in a training: the networks forward and backward, the loader, a copy in memory, an all-reduce of 4 bytes and one
of 25 MiB. A `Card` made of these numbers goes through the model's own formulas, and is compared with the epoch between
them, whose seconds are read from metrics.jsonl: what else the machine does is in both.

Every process has one thread: operators as small as these gain nothing from more. Pictures are loaded by one process
beside each; a training process loads its digits itself.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import timm
import torch
import torch.distributed as group
from rich.console import Console
from torch.utils.data import Subset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_version import code_version
from loading import SIZE, STRONG, write_jpegs

from vitcompress.core.context import Context
from vitcompress.core.machine import processor, usable_cores
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.processes import rank
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.cost_model import BUCKET, Card, Cluster, Estimate, Work, estimate
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Networks, loaders_of, student_job
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, TappedStudent
from vitcompress.stages.distill.pairs import layer_pairs, teacher_layers
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.loaders import train_views
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.models.build import cost_of
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job, TrainingState
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.measure import first_images, measure_loading

HALF = (0.5, 0.5, 0.5)
PLAIN = AugmentConfig(crop_scale=(0.8, 1.0), hflip=0.0, auto_augment=None, color_jitter=0.0, random_erasing=0.0)
PROCESSES = (1, 2, 4)
EPOCHS = 4
"""Of each training; the first is not counted."""
REPEATS = 3
LOADING_SECONDS = 0.5


@dataclass(frozen=True)
class Small:
    """A distillation of two Vision Transformers, width and depth each."""

    long_in: str
    size: int
    patch: int
    teacher: tuple[int, int]
    student: tuple[int, int]
    batch: int
    steps: int
    """Of an epoch. Where loaders start with it, which takes a third of a second here, enough for that not to show."""
    pictures: int = 0
    """JPEG files of 224 pixels; 0: the embedded digits."""

    def network(self, shape: tuple[int, int]) -> Any:
        """One of the two."""
        width, depth = shape
        arguments = {"img_size": self.size, "patch_size": self.patch, "embed_dim": width, "depth": depth}
        return timm.create_model("vit_tiny_patch16_224", num_classes=10, num_heads=width // 32, **arguments)


TRAININGS = (
    Small("the networks", 32, 4, teacher=(128, 2), student=(64, 2), batch=64, steps=12),
    Small("the exchange", 32, 32, teacher=(64, 1), student=(384, 3), batch=16, steps=12),
    Small("the loader", 224, 56, teacher=(32, 1), student=(32, 1), batch=32, steps=60, pictures=400),
)


def job_of(small: Small, config: DistillConfig, folder: Path, context: Context) -> tuple[Job, Work]:
    """The training, and what it asks for but for the loader's rate."""
    torch.manual_seed(0)
    teacher, student = small.network(small.teacher), small.network(small.student)
    costs = [cost_of(network, small.size) for network in (teacher, student)]
    spec = PreprocessSpec(size=small.size, mean=HALF, std=HALF)
    pairs = layer_pairs(config, small.student[1], small.teacher[1])
    frozen = FrozenTeacher(AdaptedTeacher(teacher, teacher_layers(pairs), spec, spec))
    images = open_images(DataConfig(source=str(folder) if small.pictures else "digits"))
    numbers = [number % len(images.train) for number in range(small.steps * small.batch)]
    images = replace(images, train=Subset(images.train, numbers))
    views = train_views(images.train, config.augmentation, spec, context.seed)
    networks = Networks(pairs, TappedStudent(student, pairs), frozen)
    job = student_job(config, networks, loaders_of(config, views, images, spec, context), context, fingerprint="scale")
    work = Work(
        small.long_in,
        "distill",
        images=len(images.train),
        epochs=EPOCHS,
        batch=small.batch,
        accumulation=1,
        flops=2 * (3 * costs[1].macs + costs[0].macs),
        starting=0.0,
        parameters=costs[1].parameters,
        loaded=1.0,
    )
    return replace(job, compared=None), work  # terms are compared at few steps, of which a short training has many


def together() -> None:
    """Wait for the other processes."""
    if group.is_initialized():
        group.barrier()


def seconds_of(call: Callable[[], Any]) -> float:
    """Median over calls that all processes make at once; each takes as long as the slowest, as in a step."""
    call()
    times = []
    for _ in range(REPEATS):
        together()
        started = time.perf_counter()
        call()
        together()
        times.append(time.perf_counter() - started)
    return mean_of(statistics.median(times))


def mean_of(value: float) -> float:
    """Of all processes."""
    held = torch.tensor([value], dtype=torch.float64)
    if group.is_initialized():
        group.all_reduce(held)
        held /= group.get_world_size()
    return float(held)


def machine_here(processes: int) -> dict[str, float]:
    """What does not depend on the training: memory and exchange, of one process among all."""
    source, target = torch.ones(2**24), torch.empty(2**24)
    copying = seconds_of(lambda: target.copy_(source))
    found = {"bandwidth": 2 * source.nbytes / copying, "hop": 0.0, "link": 1e12}
    if processes > 1:
        little, much = torch.ones(1), torch.ones(BUCKET // 4)
        waiting, sending = seconds_of(lambda: group.all_reduce(little)), seconds_of(lambda: group.all_reduce(much))
        steps = 2 * (processes - 1)
        found["hop"] = waiting / steps
        found["link"] = steps / processes * BUCKET / max(sending - waiting, 1e-6)
    return found


def measured(small: Small, pictures: Path, folder: Path, processes: int) -> dict[str, Any]:
    """What each part takes alone, and what the training takes, of one process among all."""
    workers = 1 if small.pictures else 0
    run = RunDirectory.claim(folder / f"{processes}-{TRAININGS.index(small)}-{rank()}", {"benchmark": "scale"})
    context = Context(run=run, seed=0, device="cpu", workers=workers, threads=1, console=Console(quiet=True))
    config = DistillConfig(
        batch_size=small.batch,
        epochs=EPOCHS,
        lr=1e-4,
        min_lr=1e-5,
        warmup_epochs=0.0,
        layer_decay=None,
        ema_decay=0.999,
        eval_every=EPOCHS,
        balance="fixed",
        compile="off",
        precision="float32",
        augment=STRONG if small.pictures else PLAIN,
    )
    job, work = job_of(small, config, pictures, context)
    other, _ = job_of(small, config, pictures, context)  # measured in between, and so not wrapped for the exchange
    batch = first_images(other.train, small.batch // processes)

    def networks() -> None:
        torch.stack(list(other.loss(other.model, *batch).values())).sum().backward()
        for parameter in other.model.parameters():
            parameter.grad = None

    def parts() -> dict[str, float]:
        found = {"computing": seconds_of(networks), **machine_here(processes)}
        together()
        return {**found, "loaded": mean_of(measure_loading(other.train, LOADING_SECONDS))}

    between = Between(parts)
    train(job, config, EPOCHS, context, [between])
    return {
        "work": vars(work),
        "shares_cores": workers == 0 or processes * (1 + workers) > usable_cores(),
        "parts": between.found,
        "epochs": [after - before for before, after in pairwise([0.0, *(line["seconds"] for line in run.metrics())])],
    }


class Between(Callback):
    """Measures before the first epoch and after every one."""

    def __init__(self, measure: Callable[[], dict[str, float]]) -> None:
        self.measure, self.found = measure, list[dict[str, float]]()

    def start(self, training: TrainingState) -> None:
        """Measure."""
        self.found.append(self.measure())

    def after_epoch(self, training: TrainingState, pace: Any, found: Any) -> None:
        """Measure."""
        self.found.append(self.measure())


def as_process(folder: Path, processes: int) -> None:
    """Measure and train as one of the processes; the first writes what was found."""
    make_accelerator("cpu")  # forms the group
    torch.set_num_threads(1)
    found = [measured(small, folder / "pictures", folder, processes) for small in TRAININGS]
    if rank() == 0:
        (folder / f"found-{processes}.json").write_text(json.dumps(found))


def launched(folder: Path, processes: int) -> list[dict[str, Any]]:
    """What the processes found."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    command = [*start, __file__, "--as-process", str(folder), "--processes", str(processes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{processes} processes: {done.stderr[-3000:]}")
    return list(json.loads((folder / f"found-{processes}.json").read_text()))


def predicted(training: dict[str, Any], parts: dict[str, float], processes: int) -> Estimate:
    """By the model's formulas, on a card that is one process's share of this machine."""
    cores = usable_cores() / processes
    work = Work(**{**training["work"], "loaded": parts["loaded"] / cores})
    rate = work.batch / processes * work.flops / parts["computing"]
    about = {name: parts[name] for name in ("bandwidth", "link", "hop")}
    card = Card("here", rate, 0, **about, shares_cores=training["shares_cores"])
    return estimate(work, Cluster(1, processes, card), fraction=1.0, cores=cores)


def row(training: dict[str, Any], processes: int) -> str:
    """A line of the table, milliseconds; an epoch's prediction is the mean of those before and after it."""
    every = [predicted(training, parts, processes) for parts in training["parts"]]
    taken = [seconds * every[0].work.epochs / every[0].work.steps for seconds in training["epochs"]][1:]
    foretold = [(before.step_seconds + after.step_seconds) / 2 for before, after in pairwise(every)][1:]
    ratios = sorted(one / other for one, other in zip(taken, foretold, strict=True))
    names = ("computing", "loading", "updating", "exchanging")
    figures = [*([getattr(one, name) for one in every] for name in names), foretold, taken]
    shown = " | ".join(f"{1000 * statistics.median(figure):.1f}" for figure in figures)
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"| {every[0].work.name} | {processes} | {shown} | {spread} |"


@click.command(help=__doc__)
@click.option("--processes", type=int, multiple=True, default=PROCESSES, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Markdown of the table; else printed.")
@click.option("--as-process", "folder", type=click.Path(path_type=Path), hidden=True)
def main(processes: tuple[int, ...], out: Path | None, folder: Path | None) -> None:
    """Measure, train and compare."""
    if folder is not None:
        as_process(folder, processes[0])
        return
    lines = [
        "| long in | processes | compute | load | update | exchange | predicted | measured | measured / predicted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as name:
        write_jpegs(Path(name) / "pictures", TRAININGS[-1].pictures, (SIZE, SIZE))
        for count in processes:
            found = launched(Path(name), count)
            lines += [row(training, count) for training in found]
            print("\n".join(lines[-len(TRAININGS) :]), flush=True)
    lines += [
        "",
        f"Milliseconds of a step. {processor()}, {usable_cores()} cores, load average {os.getloadavg()[0]:.1f} at the "
        f"end; torch {torch.__version__}, {code_version()}.",
    ]
    text = "\n".join(lines) + "\n"
    if out:
        out.write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
