"""Images a second of the loader alone, and whether a step ever waits for it.

    python benchmarks/loading.py            # about 2 minutes on 2 cores: the table of docs/performance.md

A folder of 224-pixel JPEGs is made, and loaded as training loads it: decoding, random crop, flip, RandAugment, erasing.
Then a student trains on it for a few steps, and the time that it stood waiting for batches is told.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.machine import processor
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.loaders import eval_loader, train_loader, train_views
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import Training

SIZE = 224
AUGMENT = AugmentConfig(
    crop_scale=(0.08, 1.0), auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, random_erasing=0.25
)
SPEC = PreprocessSpec(size=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def write_jpegs(folder: Path, count: int) -> None:
    """Pictures with detail at every scale, as photographs have, so that decoding costs what theirs does."""
    generator = np.random.default_rng(0)
    for number in range(count):
        picture = np.zeros((SIZE, SIZE, 3))
        for scale in (7, 28, 112, SIZE):
            noise = generator.normal(size=(scale, scale, 3)) * 60 / np.sqrt(scale / 7)
            picture += np.kron(noise, np.ones((SIZE // scale, SIZE // scale, 1)))
        path = folder / f"class-{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(picture + 128, 0, 255).astype(np.uint8)).save(path, quality=90)


def loader_rate(folder: Path, workers: int, batch: int, images: int) -> float:
    """Images a second, after the first batch."""
    opened = open_images(DataConfig(source=str(folder)))
    views = train_views(opened.train, AUGMENT, SPEC, 0)
    loader = train_loader(views, batch_size=batch, seed=0, workers=workers)
    endless = itertools.chain.from_iterable(loader for _ in itertools.count())
    next(iter(endless))
    started, seen = time.monotonic(), 0
    for found, _ in endless:
        seen += len(found)
        if seen >= images:
            return seen / (time.monotonic() - started)
    raise AssertionError("an endless loader ended")


def waiting(folder: Path, student: str, workers: int, batch: int, steps: int) -> tuple[float, float, list[float]]:
    """Images a second of training, seconds a step, and the wait for each batch after the first, seconds."""
    opened = open_images(DataConfig(source=str(folder)))
    views = train_views(opened.train, AUGMENT, SPEC, 0)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"labels": F.cross_entropy(model(images), labels)}

    config = TrainingConfig(
        batch_size=batch, lr=1e-5, min_lr=1e-5, warmup_epochs=0.0, layer_decay=None, ema_decay=0.9999, augment=AUGMENT
    )
    with tempfile.TemporaryDirectory() as run_folder:
        run = RunDirectory.claim(Path(run_folder) / "run", {"benchmark": "loading"})
        context = Context(run=run, seed=0, device="cpu", console=Console(quiet=True))
        loader: DataLoader[tuple[Tensor, int]] = train_loader(views, batch_size=batch, seed=0, workers=workers)
        model = timm.create_model(student, num_classes=2)
        val = eval_loader(opened.val, SPEC, batch_size=batch, workers=0)
        job = Job("student", model, lambda trained: trained, loss, loader, val, Path(run_folder) / "c", "f")
        training = Training(job, config, 1, context)
        training.model.train()
        waits, times = [], []
        batches = iter(training.loader)
        for _ in range(steps + 1):
            started = time.monotonic()
            found = next(batches)
            waits.append(time.monotonic() - started)
            training.step(*found)
            times.append(time.monotonic() - started)
    return batch * steps / sum(times[1:]), sum(times[1:]) / steps, waits[1:]


@click.command()
@click.option("--student", default="deit_tiny_patch16_224", show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--images", default=300, show_default=True, help="Images that each rate is measured over.")
@click.option("--steps", default=30, show_default=True)
def main(student: str, batch: int, images: int, steps: int) -> None:
    """Measure loading."""
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder), max(160, batch * (steps + 2) * 5 // 4))
        table = Table(title=f"The loader alone, {SIZE}-pixel JPEGs, default augmentation", title_justify="left")
        table.add_column("workers", justify="right")
        table.add_column("images a second", justify="right")
        for workers in (0, 1, 2):
            table.add_row(str(workers), f"{loader_rate(Path(folder), workers, batch, images):.0f}")
        console.print(table)
        rate, seconds, waits = waiting(Path(folder), student, 2, batch, steps)
    share = 100 * sum(waits) / (seconds * len(waits))
    console.print(
        f"{student}, batch {batch}, 2 workers: {rate:.1f} images a second, {seconds:.3f} s a step, of it waiting "
        f"for data {1000 * sum(waits) / len(waits):.2f} ms ({share:.2f} %; longest {1000 * max(waits):.2f} ms)",
        highlight=False,
    )
    load = os.getloadavg()[0]
    console.print(f"{processor()}, {torch.get_num_threads()} threads, load average {load:.1f}", highlight=False)


if __name__ == "__main__":
    main()
