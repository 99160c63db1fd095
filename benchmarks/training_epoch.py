"""An epoch of this project's training against a plain loop's, interleaved in one run.

    python benchmarks/training_epoch.py --data DIR          # DIR/train and DIR/val, class folders
    python benchmarks/training_epoch.py                     # small PNG files made here
    python benchmarks/training_epoch.py --variants all      # ours with one thing changed at a time

The plain loop is what one writes down with timm at hand: ``ImageFolder``, timm's training transform, AdamW, one
cycle, bfloat16 autocast, labels only. Ours is the training loop of `compress run` itself, with all that it adds:
averaged weights, gradient norm, checks, metrics. Every round trains each of them for one epoch, in an order drawn
anew, and ratios are of epochs of the same round. Both have the same network, images, augmentation and threads.

Beside wall time stands the processor time of all threads and loader processes. On a machine with other work it says
more, if OMP_NUM_THREADS is 1: several threads also count the time that they wait for each other.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from timm.data import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distill_step import gemm_rate, interval

from vitcompress.core.context import Context
from vitcompress.core.machine import processor
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.loaders import eval_loader, train_loader, train_views
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.training import precision
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.interrupt import StopRequest
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import Training

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN, OURS = "plain loop", "ours"


@dataclass(frozen=True)
class Setting:
    """What all loops have in common."""

    folder: Path
    student: str
    size: int
    batch: int
    images: int
    workers: int
    rounds: int


@dataclass(frozen=True)
class Variant:
    """Ours, with something changed."""

    name: str
    workers: int | None = None
    precision: str = "bfloat16"
    fused: bool = False
    """torch's fused attention in training, as timm builds it."""
    ema: float | None = 0.9999


VARIANTS = (
    Variant(OURS),
    Variant("ours, attention fused as timm has it", fused=True),
    Variant("ours, float32", precision="float32"),
    Variant("ours, no averaged weights", ema=None),
    *(Variant(f"ours, {count} workers", workers=count) for count in (0, 1, 2)),
)


def write_pngs(folder: Path, images: int) -> None:
    """Small grey pictures, as Fashion-MNIST has them, in ten classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 100)):
        for number in range(count):
            path = folder / split / f"class-{number % 10}" / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = generator.integers(0, 256, (7, 7), dtype=np.uint8)
            Image.fromarray(coarse).resize((28, 28), Image.Resampling.BICUBIC).save(path)


def plain(setting: Setting) -> Callable[[], float]:
    """The plain loop; what is returned trains an epoch and gives its loss."""
    transform = create_transform(
        setting.size, is_training=True, auto_augment=None, color_jitter=0.0, re_prob=0.0, mean=MEAN, std=STD
    )
    images = ImageFolder(str(setting.folder / "train"), transform)
    chosen = torch.randperm(len(images))[: setting.images].tolist()
    loader: DataLoader[Any] = DataLoader(
        Subset(images, chosen),
        batch_size=setting.batch,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
        persistent_workers=setting.workers > 0,
    )
    model = timm.create_model(setting.student, num_classes=len(images.classes), img_size=setting.size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    total = (setting.rounds + 2) * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=total)

    def epoch() -> float:
        model.train()
        for batch, labels in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(batch), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return float(loss.detach())

    return epoch


def ours(setting: Setting, variant: Variant, folder: Path) -> Callable[[], float]:
    """The training loop of `compress run`; what is returned trains an epoch and gives its loss."""
    opened = open_images(DataConfig(source=str(setting.folder)))
    spec = PreprocessSpec(size=setting.size, mean=MEAN, std=STD)
    augment = AugmentConfig(crop_scale=(0.08, 1.0), auto_augment=None, color_jitter=0.0, random_erasing=0.0)
    chosen = np.random.default_rng(0).permutation(len(opened.train))[: setting.images]
    views = train_views(_Part(opened.train, chosen.tolist()), augment, spec, 0)
    workers = setting.workers if variant.workers is None else variant.workers
    console = Console(quiet=True)
    run = RunDirectory.claim(folder / variant.name.replace(" ", "-"), {"benchmark": variant.name})
    context = Context(run=run, seed=0, device="cpu", console=console, workers=workers)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"labels": F.cross_entropy(model(images).float(), labels)}

    job = Job(
        "student",
        timm.create_model(setting.student, num_classes=len(opened.classes), img_size=setting.size),
        lambda trained: trained,
        loss,
        train_loader(views, batch_size=setting.batch, seed=0, workers=workers),
        eval_loader(opened.val, spec, batch_size=setting.batch, workers=workers),
        run.root / "checkpoints",
        "benchmark",
    )
    config = TrainingConfig(
        batch_size=setting.batch,
        lr=1e-3,
        min_lr=1e-5,
        warmup_epochs=0.0,
        clip_grad=1.0,
        ema_decay=variant.ema,
        precision=variant.precision,  # type: ignore[arg-type]
        checkpoint_seconds=1e9,
    )
    training = Training(job, config, setting.rounds + 2, context)
    precision.settle_precision(training)
    for module in training.model.modules() if variant.fused else ():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    stop = StopRequest()

    def epoch() -> float:
        with training.started():
            training._epoch(stop)
        return sum(training.progress.losses.values())

    return epoch


@dataclass(frozen=True)
class _Part:
    """Some images of a split."""

    split: Any
    indices: list[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.split[self.indices[index]]


def processor_seconds() -> float:
    """Processor time so far of this process and the loader processes it has."""
    own = psutil.Process()
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def measure(setting: Setting, variants: tuple[Variant, ...], folder: Path) -> dict[str, Any]:
    """Seconds of an epoch of every loop, by round; the first epoch of each is not counted."""
    loops = {PLAIN: plain(setting)} | {variant.name: ours(setting, variant, folder) for variant in variants}
    order = random.Random(0)  # noqa: S311 - an order, no secret
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    processor: dict[str, list[float]] = {name: [] for name in loops}
    losses: dict[str, float] = {}
    rates = []
    for number in range(1 + setting.rounds):
        for name in order.sample(list(loops), len(loops)):
            started, spent = time.perf_counter(), processor_seconds()
            losses[name] = loops[name]()
            if number:
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(processor_seconds() - spent)
        rates.append(gemm_rate())
    return {"seconds": seconds, "processor_seconds": processor, "losses": losses, "gemm_gflops": rates}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder with train/ and val/.")
@click.option("--student", default="deit_tiny_patch16_224", show_default=True)
@click.option("--size", default=112, show_default=True, help="Pixels.")
@click.option("--batch", default=64, show_default=True)
@click.option("--images", default=512, show_default=True, help="Of an epoch.")
@click.option("--workers", default=2, show_default=True, help="Of every loop.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--variants", type=click.Choice(["ours", "all"]), default="ours", show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every figure there.")
def main(
    data: Path | None, student: str, size: int, batch: int, images: int, workers: int, rounds: int, variants: str,
    file: Path | None,
) -> None:  # fmt: skip
    """Measure epochs."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            data = Path(folder) / "images"
            write_pngs(data, images)
        setting = Setting(data, student, size, batch, images, workers, rounds)
        chosen = VARIANTS if variants == "all" else VARIANTS[:1]
        found = measure(setting, chosen, Path(folder))
    show(setting, found)
    if file:
        machine = {"processor": processor(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
        given = {**vars(setting), "folder": str(setting.folder)}
        file.write_text(json.dumps({"setting": given, "machine": machine, **found}, indent=1) + "\n")


def show(setting: Setting, found: dict[str, Any]) -> None:
    """The table of docs/performance.md."""
    print(
        f"{setting.student}, {setting.size} pixels, batch {setting.batch}, {setting.images} images an epoch, ", end=""
    )
    print(f"{setting.workers} workers, {setting.rounds} rounds.\n")
    print("| loop | seconds an epoch | of the plain loop's [95 %] | processor seconds | of the plain loop's [95 %] |")
    print("| --- | --- | --- | --- | --- |")
    for name in found["seconds"]:
        cells = []
        for kind in ("seconds", "processor_seconds"):
            taken, base = found[kind][name], found[kind][PLAIN]
            ratios = [one / other for one, other in zip(taken, base, strict=True)]
            low, high = interval(ratios)
            cells += [f"{statistics.median(taken):.2f}", f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]"]
        print(f"| {name} | {' | '.join(cells)} |")
    rates = found["gemm_gflops"]
    print(
        f"\n{processor()}, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}; one float32 ",
        end="",
    )
    print(f"product of 1024^3 {statistics.median(rates):.0f} GFLOP/s ({min(rates):.0f} to {max(rates):.0f}).")


if __name__ == "__main__":
    main()
