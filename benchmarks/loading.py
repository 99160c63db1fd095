"""Images a second of the loader, of every choice that there is; what 8 GPUs need; and whether a step ever waits.

    python benchmarks/loading.py                     # 4 minutes on 2 cores
    python benchmarks/loading.py --write             # the same into docs/loading.md

Photographs of 500x375 pixels (ImageNet's usual size) are loaded as training loads them, by one loader process for each
choice, all in turn. What counts is the processor time of that process, so that neighbours disturb less.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from marked import write_marked

import vitcompress as vc
from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.cost_model import ASSUMED_FRACTION, CARDS, CORES_A_CARD
from vitcompress.pipeline.machine import processor
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.loaders import eval_loader, train_loader, train_views
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.models.build import cost_of
from vitcompress.stages.models.names import resolve_architecture
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import Training

PAGE = Path(__file__).resolve().parents[1] / "docs" / "loading.md"
SIZE = 224
PHOTO, LARGE = (500, 375), (1600, 1200)
SPEC = PreprocessSpec(size=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STRONG = AugmentConfig(
    crop_scale=(0.08, 1.0), auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, random_erasing=0.25
)
LIGHT = AugmentConfig(crop_scale=(0.08, 1.0), auto_augment=None, color_jitter=0.0, random_erasing=0.0)
RECIPES = {"light": LIGHT, "strong": STRONG}
BATCH = 32
SIZES = {"pack": 256, "whole": None}
"""Of packs."""
TWINS = {"data.on_duplicates": "allow"}
"""Many files are of the same part of a photograph."""
FAST = {"backend": "torchvision", "normalize_on": "device"}


@dataclass
class Choice:
    """One way of giving images to a training."""

    name: str
    source: str
    """``files``, ``shards``, ``pack``, ``whole`` (a pack of full size) or ``large``."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of ``data.augment``."""


CHOICES = (
    Choice("JPEG files (the default)", "files"),
    Choice("JPEG files, `normalize_on=device`", "files", {"normalize_on": "device"}),
    Choice("JPEG files, `backend=torchvision`", "files", {"backend": "torchvision"}),
    Choice("JPEG files, both", "files", FAST),
    Choice("WebDataset shards on this machine", "shards"),
    Choice("WebDataset shards, both", "shards", FAST),
    Choice("pack, 256 pixels", "pack"),
    Choice("pack, 256 pixels, both", "pack", FAST),
    Choice("pack, `--full`, both", "whole", FAST),
)
LARGE_CHOICES = (
    Choice("JPEG files (the default)", "large"),
    Choice("JPEG files, both", "large", FAST),
)


def write_jpegs(folder: Path, count: int, size: tuple[int, int] = PHOTO) -> None:
    """Parts of two photographs, each part another one, in two class folders."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(count):
        photo = photos[number % 2]
        room = [whole - part for whole, part in zip(photo.size, PHOTO, strict=True)]
        left, top = (number * step % (space + 1) for step, space in zip((37, 11), room, strict=True))
        part = photo.crop((left, top, left + PHOTO[0], top + PHOTO[1])).resize(size, Image.Resampling.BICUBIC)
        path = folder / f"class-{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.save(path, quality=92)


def write_shards(files: Path, folder: Path) -> None:
    """The same files as one WebDataset shard for each split."""
    folder.mkdir()
    with tarfile.open(folder / "all.tar", "w") as tar:
        for path in sorted(files.rglob("*.jpg")):
            for suffix, content in (("jpg", path.read_bytes()), ("cls", path.parent.name[-1].encode())):
                entry = tarfile.TarInfo(f"{path.stem}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    splits = {name: {"name": name, "filenames": ["all.tar"]} for name in ("train", "validation")}
    for split in splits.values():
        split |= {"shard_lengths": [0], "num_samples": len(list(files.rglob("*.jpg")))}  # type: ignore[assignment]
    (folder / "_info.json").write_text(json.dumps({"splits": splits}))
    (folder / "labels.txt").write_text("class-0\nclass-1\n")


def sources_in(folder: Path, files: int, names: Iterable[str]) -> dict[str, DataConfig]:
    """Sources of images, by the names that choices have for them."""
    write_jpegs(folder / "files", files)
    configs = {}
    for name in dict.fromkeys(names):
        configs[name] = DataConfig(source=str(folder / name))
        if name == "large":
            write_jpegs(folder / name, max(files // 4, BATCH * 5 // 4), LARGE)
        elif name == "shards":
            write_shards(folder / "files", folder / name)
            labels = str(folder / name / "labels.txt")
            configs[name] = DataConfig(source="wds/some", root=str(folder / name), labels=labels)
        elif name in SIZES:
            vc.pack(folder / "files", folder / name, size=SIZES[name], settings=TWINS, progress=False)
    return configs


def loader_rate(data: DataConfig, augment: AugmentConfig, workers: int, batch: int, images: int,
                take: Callable[[Tensor], Any] = lambda images: images) -> float:  # fmt: skip
    """Images a second by the clock, after the first batch; ``take`` is done to each batch."""
    views = train_views(open_images(data).train, augment, SPEC, 0)
    loader = train_loader(views, batch_size=batch, seed=0, workers=workers)
    endless = itertools.chain.from_iterable(loader for _ in itertools.count())
    take(next(iter(endless))[0])
    started, seen = time.monotonic(), 0
    for found, _ in endless:
        take(found)
        seen += len(found)
        if seen >= images:
            return seen / (time.monotonic() - started)
    raise AssertionError("an endless loader ended")


@dataclass
class Worker:
    """A loader with one process, and the processor time that this process takes for a pass."""

    loader: DataLoader[Any]
    images: int
    process: psutil.Process
    rates: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, data: DataConfig, augment: AugmentConfig) -> Worker:
        """Start it, with a pass that is not counted."""
        views = train_views(open_images(data).train, augment, SPEC, 0)
        loader = train_loader(views, batch_size=BATCH, seed=0, workers=1)
        before = set(psutil.Process().children())
        images = sum(len(found) for found, _ in loader)
        (process,) = set(psutil.Process().children()) - before
        return cls(loader, images, process)

    def measure(self) -> None:
        """Take a pass more. All of its batches are received, so the process has nothing left to do before or after."""
        before = self._seconds()
        for _ in self.loader:
            pass
        self.rates.append(self.images / (self._seconds() - before))

    def _seconds(self) -> float:
        """Processor time of its threads, to the nanosecond; the system's own sums are of hundredths."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def measured(configs: dict[str, DataConfig], choices: tuple[Choice, ...], rounds: int) -> Iterator[list[list[float]]]:
    """Of each choice: images a second a core by recipe, all rounds; choices and recipes in turn."""
    workers = [
        [Worker.of(configs[choice.source], augment.model_copy(update=choice.settings)) for augment in RECIPES.values()]
        for choice in choices
    ]
    for _ in range(rounds):
        for worker in itertools.chain.from_iterable(workers):
            worker.measure()
    for row in workers:
        yield [worker.rates for worker in row]


def needed(teacher: str, student: str) -> dict[str, tuple[float, float]]:
    """Images a second that an H100 takes at the assumed shares of its peak: with the teacher live, and kept."""
    own, beside = (cost_of(timm.create_model(resolve_architecture(name)), SIZE).macs for name in (student, teacher))
    flops = {"live": 2 * (3 * own + beside), "kept": 2 * 3 * own}
    low, high = (share * CARDS["H100"].flops for share in ASSUMED_FRACTION)
    return {name: (low / each, high / each) for name, each in flops.items()}


def table(choices: tuple[Choice, ...], rates: list[list[list[float]]]) -> list[str]:
    """Medians and ranges, and how many times as fast as the first row."""
    lines = [
        "| row | source and `data.augment` | light | strong | times the default |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, (choice, row) in enumerate(zip(choices, rates, strict=True), 1):
        cells = [f"{statistics.median(each):,.0f} [{min(each):,.0f}, {max(each):,.0f}]" for each in row]
        times = [statistics.median(each) / statistics.median(first) for each, first in zip(row, rates[0], strict=True)]
        lines.append(f"| {number} | {choice.name} | {cells[0]} | {cells[1]} | {times[0]:.2f}, {times[1]:.2f} |")
    return lines


def verdicts(rates: list[list[list[float]]]) -> list[str]:
    """What H100 take, and how many cores a card that is with some of the choices."""
    shown = {number: rates[number - 1] for number in (1, 4, 8)}
    low, high = (f"{share:.0%}" for share in ASSUMED_FRACTION)
    lines = [
        f"What 8 H100 take, DeiT-Tiny <- CaiT-S24 at {SIZE} pixels, by `pipeline/cost_model.py`: {low} to {high} of a "
        f"card's peak (assumed; not yet measured). `live`: the teacher runs in every step; `kept`: its answers are "
        f"kept (`distill.views`). Rented machines have about {CORES_A_CARD} cores a card; **bold** is what these give "
        "at the lower end.",
        "",
        "| teacher | recipe | images a second, a card | 8 cards | "
        + " | ".join(f"cores a card, row {number}" for number in shown)
        + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(shown),
    ]
    for (kind, per_card), (at, recipe) in itertools.product(
        needed("cait_s24", "deit_tiny").items(), enumerate(RECIPES)
    ):
        cores = [[rate / statistics.median(row[at]) for rate in per_card] for row in shown.values()]
        cells = [f"{least:,.0f} to {most:,.0f}" for least, most in cores]
        cells = [f"**{cell}**" if each[0] <= CORES_A_CARD else cell for cell, each in zip(cells, cores, strict=True)]
        card, machine = (f"{count * per_card[0]:,.0f} to {count * per_card[1]:,.0f}" for count in (1, 8))
        lines.append(f"| {kind} | {recipe} | {card} | {machine} | {' | '.join(cells)} |")
    return lines


def decoders(files: Path) -> str:
    """Milliseconds of processor time that decoding alone takes, by what decodes."""

    def pillow(content: bytes) -> None:
        Image.open(io.BytesIO(content)).load()

    def half(content: bytes) -> None:
        image = Image.open(io.BytesIO(content))
        image.draft("RGB", (image.width // 2, image.height // 2))
        image.load()

    def torchvision(content: bytes) -> None:
        from torchvision.io import decode_jpeg  # deprecated since 0.29

        decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))

    contents = [path.read_bytes() for path in sorted(files.rglob("*.jpg"))[:40]]
    ways = {"Pillow": pillow, "Pillow at half the size": half, "`torchvision.io.decode_jpeg`": torchvision}
    return in_turn(ways, contents)


def random_augments(files: Path) -> str:
    """Milliseconds of processor time that RandAugment alone takes, by what it works on."""
    images = [Image.open(path).resize((SIZE, SIZE)) for path in sorted(files.rglob("*.jpg"))[:40]]
    tensors = {id(image): pil_to_tensor(image) for image in images}
    policy = rand_augment_transform("rand-m9-mstd0.5-inc1", {"translate_const": 100, "img_mean": (124, 116, 104)})
    on_tensors = v2.RandAugment(2, 9)
    ways = {
        "timm's on Pillow's image": policy,
        "torchvision's v2 on a tensor": lambda image: on_tensors(tensors[id(image)]),
    }
    return in_turn(ways, images)


def in_turn(ways: dict[str, Callable[[Any], Any]], given: list[Any]) -> str:
    """The least of 5 rounds of each way, an image."""
    best = dict.fromkeys(ways, float("inf"))
    for _, (name, way) in itertools.product(range(5), ways.items()):
        started = time.process_time()
        for each in given:
            way(each)
        best[name] = min(best[name], 1e3 * (time.process_time() - started) / len(given))
    return ", ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in best.items()) + "."


def waiting(data: DataConfig, student: str, workers: int, batch: int, steps: int) -> tuple[float, float, list[float]]:
    """Images a second of training, seconds a step, and the wait for each batch after the first, seconds."""
    opened = open_images(data)
    views = train_views(opened.train, STRONG, SPEC, 0)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"labels": F.cross_entropy(model(images), labels)}

    config = TrainingConfig(
        batch_size=batch, lr=1e-5, min_lr=1e-5, warmup_epochs=0.0, layer_decay=None, ema_decay=0.9999, augment=STRONG
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


def told(folder: Path, files: int, rounds: int, steps: int) -> Iterator[str]:
    """The lines of docs/loading.md, as they are measured."""
    configs = sources_in(folder, files, [choice.source for choice in (*CHOICES, *LARGE_CHOICES)])
    kilobytes = statistics.mean(path.stat().st_size for path in (folder / "files").rglob("*.jpg")) / 1e3
    load = os.getloadavg()[0]
    yield (
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, load average {load:.1f}; torch {torch.__version__}, "
        f"Pillow {Image.__version__}. JPEGs of {PHOTO[0]}x{PHOTO[1]} pixels, {kilobytes:.0f} kB each; medians of "
        f"{rounds} rounds [least, most]:"
    )
    rates = list(measured(configs, CHOICES, rounds))
    yield from ("", *table(CHOICES, rates), "", *verdicts(rates), "")
    yield f"JPEGs of {LARGE[0]}x{LARGE[1]} pixels, most of which `backend=torchvision` decodes smaller:"
    yield from ("", *table(LARGE_CHOICES, list(measured(configs, LARGE_CHOICES, rounds))), "")
    yield f"Decoding alone: {decoders(folder / 'files')}"
    yield f"RandAugment alone: {random_augments(folder / 'files')}"
    batch = 4
    rate, seconds, waits = waiting(configs["files"], "deit_tiny_patch16_224", 2, batch, steps)
    share = 100 * sum(waits) / (seconds * len(waits))
    yield ""
    yield (
        f"A step here, DeiT-Tiny from labels, batch {batch}, 2 loader processes, strong: {rate:.1f} images a second, "
        f"{seconds:.3f} s a step, of it waiting for data {1000 * sum(waits) / len(waits):.2f} ms ({share:.1f} %)."
    )


@click.command(help=__doc__)
@click.option("--files", default=240, show_default=True, help="JPEG files; four fifths of them are trained on.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--steps", default=20, show_default=True, help="Steps of a training, to see whether it waits.")
@click.option("--write", is_flag=True, help="Put the result into docs/loading.md.")
def main(files: int, rounds: int, steps: int, write: bool) -> None:
    """Measure loading."""
    torch.set_num_threads(1)  # as in a loader process
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for line in told(Path(folder), files, rounds, steps):
            click.echo(line)
            lines.append(line)
    if write:
        write_marked(PAGE, "benchmarks/loading.py --write", "\n".join(lines))


if __name__ == "__main__":
    main()
