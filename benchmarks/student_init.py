"""What a student's first weights are worth: random ones against the teacher's.

    python benchmarks/student_init.py --data DIR --teacher-weights FILE

A pretrained teacher is fitted to the images (layer-decayed, two epochs; kept in --cache), then every student is trained
on labels alone by one plain loop: AdamW, one cycle, bfloat16 autocast, mirrored images. Prints a table, and writes it
with --output FILE (JSON beside it).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from vitcompress.core.machine import processor, usable_cores
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.models.build import build_model, preprocess_of
from vitcompress.stages.models.checkpoint import read_checkpoint
from vitcompress.stages.models.inherit.inherit import inherit

TEACHER, TEACHER_ARGS = "vit_small_patch14_dinov2", {"img_size": 98}
STUDENT, STUDENT_ARGS = "deit_tiny_patch16_224", {"img_size": 112}
RATES = {"random": (1e-3,)}
"""Peak learning rates tried; of ``INHERITED_RATES`` where weights come from the teacher."""
INHERITED_RATES = (3e-4,)
INHERITED_DECAY = 0.75
"""Layer decay where weights come from the teacher: without it a few steps undo them, as they do any pretrained ones."""
WAYS = ("random", "teacher")


@dataclass(frozen=True)
class Pixels:
    """Images and labels, ready for one network."""

    train: Tensor
    """uint8 ``[N, S, S, 3]``."""
    train_labels: Tensor
    val: Tensor
    val_labels: Tensor
    spec: PreprocessSpec

    def batch(self, pixels: Tensor) -> Tensor:
        """Float32 ``[B, 3, S, S]`` of pixels ``[B, S, S, 3]``."""
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.spec.mean, self.spec.std))
        return ((scaled - mean) / std).contiguous()


@dataclass(frozen=True)
class Row:
    """One training."""

    way: str
    seed: int
    lr: float
    before: float
    """Top-1 before training, percent."""
    top1: tuple[float, ...]
    """After each epoch, percent."""
    words: str
    inherit_seconds: float
    train_seconds: float


def load_pixels(folder: str, spec: PreprocessSpec, train: int, val: int) -> Pixels:
    """The first images of each split in the order of their file names (the published one, for Fashion-MNIST)."""
    images = open_images(DataConfig(source=folder))

    def first(split: Any, count: int) -> tuple[Tensor, Tensor]:
        order = sorted(range(len(split)), key=lambda index: Path(split.items[index][0]).name)[:count]
        pixels, labels = zip(*(split[index] for index in order), strict=True)
        return torch.from_numpy(np.stack([spec.pixels(image) for image in pixels])), torch.tensor(labels)

    return Pixels(*first(images.train, train), *first(images.val, val), spec)


def optimizer_of(model: nn.Module, lr: float, layer_decay: float | None) -> torch.optim.Optimizer:
    """AdamW with timm's groups, the rate of each as its own."""
    optimizer = create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=0.05, layer_decay=layer_decay)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    return optimizer


def top1(model: nn.Module, data: Pixels) -> float:
    """Percent of the held-out images."""
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = torch.cat([model(data.batch(part)).argmax(1) for part in data.val.split(100)])
    return 100 * float((found == data.val_labels).double().mean())


def plain_loop(
    model: nn.Module,
    data: Pixels,
    *,
    epochs: int,
    lr: float,
    seed: int,
    batch: int = 64,
    layer_decay: float | None = None,
) -> tuple[float, ...]:
    """Train in place on labels alone; top-1 after each epoch, percent."""
    torch.manual_seed(seed)
    optimizer = optimizer_of(model, lr, layer_decay)
    steps = len(data.train) // batch
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * steps, pct_start=0.15)
    found = []
    for _ in range(epochs):
        model.train()
        for chosen in torch.randperm(len(data.train))[: steps * batch].split(batch):
            pixels = data.train[chosen]
            pixels = torch.where(torch.rand(len(chosen), 1, 1, 1) < 0.5, pixels.flip(2), pixels)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(data.batch(pixels)).float(), data.train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        found.append(top1(model, data))
    return tuple(found)


def fitted_teacher(
    spec: ModelSpec, weights: Path, folder: str, train: int, val: int, cache: Path, epochs: int = 2
) -> tuple[nn.Module, Pixels, float]:
    """The teacher fitted to the images, its pixels and its top-1 (percent); kept in ``cache`` for the next time."""
    model: Any = build_model(spec)
    data = load_pixels(folder, preprocess_of(model, spec.args, 1.0), train, val)
    if cache.is_file():
        model.load_state_dict(read_checkpoint(cache).state)
        return model, data, top1(model, data)
    adapt = getattr(timm.models.vision_transformer, "checkpoint_filter_fn", None)
    state = read_checkpoint(weights).state
    model.load_state_dict(adapt(state, model) if adapt else state, strict=False)
    plain_loop(model, data, epochs=epochs, lr=3e-4, seed=0, layer_decay=0.75)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), cache)
    return model, data, top1(model, data)


def rows(
    teacher: nn.Module,
    teacher_data: Pixels,
    student: ModelSpec,
    folder: str,
    *,
    ways: Sequence[str] = WAYS,
    seeds: Iterable[int] = (0,),
    epochs: int = 4,
    calibration: int = 320,
    rates: Sequence[float] = (),
) -> list[Row]:
    """A row for each way, seed and rate; every student trains on the teacher's images and labels.

    Args:
        teacher: fitted to the images' classes.
        teacher_data: the images as it takes them.
        student: the network to train.
        folder: where the images are.
        ways: of ``WAYS``.
        seeds: of initial weights and of the order of images.
        epochs: of each training; 0 judges the first weights alone.
        calibration: training images that the directions are found on.
        rates: peak learning rates; none for those that suit random and inherited weights.
    """
    found = []
    spec = preprocess_of(build_model(student), student.args, 1.0)
    data = load_pixels(folder, spec, len(teacher_data.train), len(teacher_data.val))
    for seed in seeds:
        for way in ways:
            for lr in rates or RATES.get(way, INHERITED_RATES):
                torch.manual_seed(seed)
                model = build_model(student)
                words, started = "the seed's", time.perf_counter()
                if way != "random":
                    views = tuple(each.batch(each.train[:calibration]) for each in (teacher_data, data))
                    words = inherit(teacher, model, views, (teacher_data.spec, spec)).words  # type: ignore[arg-type]
                inheriting = time.perf_counter() - started
                before, started = top1(model, data), time.perf_counter()
                decay = None if way == "random" else INHERITED_DECAY
                after = plain_loop(model, data, epochs=epochs, lr=lr, seed=seed, layer_decay=decay) if epochs else ()
                found.append(Row(way, seed, lr, before, after, words, inheriting, time.perf_counter() - started))
                print(found[-1], flush=True)
    return found


def table(found: Sequence[Row]) -> str:
    """As markdown; means over seeds."""
    lines = [
        "| first weights | lr | top-1 before training | after each epoch | what was taken | taking it, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way, lr in dict.fromkeys((row.way, row.lr) for row in found):
        same = [row for row in found if (row.way, row.lr) == (way, lr)]
        before, seconds = (
            float(np.mean([getattr(row, name) for row in same])) for name in ("before", "inherit_seconds")
        )
        after = np.mean([row.top1 for row in same], axis=0)
        cells = ", ".join(f"{value:.1f}" for value in np.atleast_1d(after))
        lines.append(f"| {way} | {lr:g} | {before:.1f} | {cells} | {same[0].words} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images with train/ and val/")
    parser.add_argument("--teacher-weights", type=Path, required=True)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--val", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="*", default=())
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--cache", type=Path, default=Path("runs/student-init/teacher.pt"))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    classes = len(open_images(DataConfig(source=given.data)).classes)
    spec = ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=classes)
    teacher, data, accuracy = fitted_teacher(
        spec, given.teacher_weights, given.data, given.train, given.val, given.cache
    )
    student = ModelSpec(arch=STUDENT, args=STUDENT_ARGS, num_classes=classes)
    seeds = range(given.seeds)
    found = rows(
        teacher, data, student, given.data, ways=given.ways, seeds=seeds, epochs=given.epochs, rates=given.rates
    )
    text = (
        f"{processor()}, {usable_cores()} cores, torch {torch.__version__}, timm {timm.__version__}. Teacher "
        f"{TEACHER} at {TEACHER_ARGS['img_size']} pixels, {accuracy:.1f} % top-1; student {STUDENT} at "
        f"{STUDENT_ARGS['img_size']}; {given.train} training and {given.val} held-out images, {given.epochs} epochs, "
        f"{given.seeds} seed(s).\n\n{table(found)}\n"
    )
    print(text)
    if given.output:
        given.output.write_text(text)
        given.output.with_suffix(".json").write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
