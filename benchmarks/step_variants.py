"""The loops that ``distill_step.py`` and ``gpu/step.py`` measure: a plain eager one, and this project's own."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.distill import job as distill_job
from vitcompress.stages.distill.cache.fill import fill, parts_of
from vitcompress.stages.distill.cache.store import CachedViews, Store
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, TappedStudent
from vitcompress.stages.distill.pairs import layer_pairs, teacher_layers
from vitcompress.stages.images.loaders import ViewKey, train_loader
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.names import resolve_architecture
from vitcompress.stages.training import loop as training_loop
from vitcompress.stages.training.compilation import compile_in_place
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.labels import LabelLoss
from vitcompress.stages.training.loop import Training
from vitcompress.stages.training.optimizer import take_step

CLASSES = 1000
PLAIN, LIVE, CACHED = "plain eager loop", "ours, live teacher, compiled", "ours, cached teacher, compiled"
SHORT = "ours, live teacher in bfloat16, compiled"
VARIANTS = (PLAIN, LIVE, SHORT, CACHED)
WITHOUT = ("reading late", "channels last", "the teacher beside")
"""What a step on a GPU can be measured without; the loop has no setting for it."""
HALF = PreprocessSpec(size=1, mean=(0.5,) * 3, std=(0.5,) * 3)
"""Both networks take the images as they are; what they show does not matter here."""


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    teacher: str
    student: str
    args: dict[str, Any]
    batch: int
    steps: int
    """So many batches of images are held; a loop that takes more goes round."""
    folder: Path
    device: str = "cpu"
    """Where both networks are: ``cpu`` or ``cuda``."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """Random images, held in memory, so that decoding does not enter."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, 3, size, size, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: ViewKey) -> tuple[Tensor, int]:
        return self.images[key.index], key.index % CLASSES


class Clock:
    """Seconds spent inside wrapped calls, by name; nested calls are taken out of the outer one."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.open: list[list[float]] = []

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.running(name):
                return call(*arguments, **named)

        return timed

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Time the block."""
        inside = [0.0]
        self.open.append(inside)
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.open.pop()
            self.spent[name] += took - inside[0]
            if self.open:
                self.open[-1][0] += took


def networks(setting: Setting) -> tuple[nn.Module, nn.Module]:
    """Teacher and student with the same weights for every variant."""
    torch.manual_seed(0)
    teacher = timm.create_model(resolve_architecture(setting.teacher), num_classes=CLASSES, **setting.args)
    student = timm.create_model(resolve_architecture(setting.student), num_classes=CLASSES, **setting.args)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if ".gamma_" in name:  # LayerScale begins near 0, where what a block computes would not show in the losses
                parameter.fill_(0.1)
    return teacher, student


def batches(views: Any, batch: int) -> Iterator[Any]:
    """The batches of training, one epoch after the other, the same for every variant."""
    loader: DataLoader[Any] = train_loader(views, batch_size=batch, seed=0, workers=0, fixed_views=1)
    sampler: Any = loader.sampler
    for epoch in range(10**9):
        sampler.set_epoch(epoch)
        yield from loader


Step = Callable[[], tuple[Tensor, dict[str, float]]]
"""One step: its loss, which is not read yet, and seconds by part."""


def plain_step(setting: Setting, config: DistillConfig, size: int, precision: torch.dtype = torch.float32) -> Step:
    """The published loop, as plain as it can be written; with ``precision`` bfloat16, all of it under autocast."""
    teacher, student = (network.to(setting.device) for network in networks(setting))
    short = torch.autocast(setting.device, torch.bfloat16, enabled=precision == torch.bfloat16)
    teacher.eval().requires_grad_(False)
    student.train()
    spared = student.no_weight_decay()
    groups = param_groups_weight_decay(student, config.weight_decay, no_weight_decay_list=spared)
    optimizer = torch.optim.AdamW(groups, lr=float(config.lr))
    data = batches(Pictures(setting.batch * setting.steps, size), setting.batch)
    last_teacher, last_student = len(teacher.blocks) - 1, len(student.blocks) - 1

    def tapped(network: Any, images: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        final, (tap,) = network.forward_intermediates(images, indices=[layer], norm=False, output_fmt="NCHW")
        return network.forward_head(final), tap

    def spectrum(tap: Tensor) -> Tensor:
        found = torch.fft.rfft2(tap.float(), norm="ortho")
        return torch.stack([found.real, found.imag], dim=-1)

    def step() -> tuple[Tensor, dict[str, float]]:
        clock = Clock()
        with clock.running("data"):
            images, labels = (part.to(setting.device, non_blocking=True) for part in next(data))
        with clock.running("teacher"), torch.no_grad(), short:
            teacher_logits, teacher_tap = tapped(teacher, images, last_teacher)
        with clock.running("student forward"), short:
            logits, tap = tapped(student, images, last_student)
        with clock.running("losses"), short:
            pooled = F.adaptive_avg_pool3d(teacher_tap, (tap.shape[1], None, None))
            spectral = F.mse_loss(spectrum(tap), spectrum(pooled))
            soft = F.kl_div(
                logits.log_softmax(-1), teacher_logits.log_softmax(-1), reduction="batchmean", log_target=True
            )
            hard = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            loss = (1 - config.alpha) * hard + config.alpha * soft + 0.2 * spectral
        with clock.running("backward"):
            optimizer.zero_grad()
            loss.backward()
        with clock.running("optimizer"):
            optimizer.step()
        return loss.detach(), dict(clock.spent)

    return step


def our_step(
    setting: Setting,
    config: DistillConfig,
    size: int,
    context: Context,
    *,
    cached: bool,
    compiled: bool = True,
    without: str = "",
) -> Step:
    """A step of `compress run`: its job, its loop, its cache; ``without`` is one of ``WITHOUT``."""
    graphs = compiled and config.compile == "graphs"
    network, student = networks(setting)
    pairs = layer_pairs(config, len(student.blocks), len(network.blocks))
    precision = torch.bfloat16 if config.teacher_precision == "bfloat16" else torch.float32
    adapted = AdaptedTeacher(network, teacher_layers(pairs), HALF, HALF, precision=precision)
    teacher: FrozenTeacher | None = FrozenTeacher(adapted).to(setting.device)
    tapped = TappedStudent(student, pairs)
    _ = family_of(network), family_of(student)  # found now, as in a run, or compiled code is cut where it is searched
    if compiled:
        compile_in_place(tapped, *([] if cached else [adapted]), graphs=graphs)
    views: Any = Pictures(setting.batch * setting.steps, size)
    if cached and teacher is not None:
        device = torch.device(setting.device)
        parts = parts_of(teacher, views[ViewKey(0, 0)][0][None].to(device), teacher_layers(pairs))
        key = {"benchmark": setting.teacher, "batch": setting.batch}
        store = Store(setting.folder / "cache", key, parts, images=len(views), views=1)
        fill(store, views, teacher, context, batch_size=setting.batch, max_gb=20)
        views, teacher = CachedViews(views, store), None
    clock = Clock()
    if teacher is not None:
        if graphs or without == "the teacher beside":
            teacher.beside = None
        teacher.forward = clock.wrap("teacher", teacher.forward)  # type: ignore[method-assign]
    label_loss = LabelLoss(smoothing=config.label_smoothing)
    loss = clock.wrap("losses", partial(distill_job._loss, config, label_loss, pairs, teacher))
    job = Job(
        name="student",
        model=tapped,
        network=lambda student: student.network,
        loss=lambda model, *batch: loss(clock.wrap("student forward", model), *batch),
        train=train_loader(views, batch_size=setting.batch, seed=0, workers=0, fixed_views=1),
        val=DataLoader(views, batch_size=setting.batch),
        folder=setting.folder / "checkpoints",
        fingerprint="benchmark",
    )
    training = Training(job, config, 1, context)
    training.model.train()
    accelerator = training.accelerator
    accelerator.asynchronous &= without != "reading late"
    accelerator.channels_last &= without != "channels last"
    accelerator.backward = clock.wrap("backward", accelerator.backward)
    training.optimizer.zero_grad = clock.wrap("optimizer", training.optimizer.zero_grad)
    training.average.saved.update = clock.wrap("averaged weights", training.average.saved.update)  # type: ignore[union-attr,method-assign]
    data = batches(views, setting.batch)
    update = clock.wrap("optimizer", take_step)

    def step() -> tuple[Tensor, dict[str, float]]:
        clock.spent.clear()
        training_loop.take_step = update  # every variant has its own clock
        with clock.running("loop"):
            with clock.running("data"):
                batch = [part.to(setting.device, non_blocking=True) for part in next(data)]
            training.step(*batch)
        return training.readings.kept.pop().terms.sum(), dict(clock.spent)

    return step


def settings_of(setting: Setting, **settings: Any) -> DistillConfig:
    """What both loops train with: the published recipe at a constant rate, nothing clipped."""
    rate = 5e-4 * setting.batch / 512
    fixed: dict[str, Any] = {
        "batch_size": setting.batch,
        "lr": rate,
        "min_lr": rate,
        "warmup_epochs": 0.0,
        "warmup_lr": 0.0,
        "layer_decay": None,
        "clip_grad": None,
        "ema_decay": 0.99996,
        "ema_warmup": False,
    }
    return DistillConfig(**fixed, **settings)


def context_of(setting: Setting, name: str) -> Context:
    """A run folder of its own for one of our loops."""
    run = RunDirectory.claim(setting.folder / name.replace(" ", "-"), {"benchmark": name})
    return Context(run=run, seed=0, device=setting.device, console=Console(quiet=True))


def make(variant: str, setting: Setting, size: int) -> Step:
    """A variant ready to step."""
    config = settings_of(setting, teacher_precision="bfloat16" if variant == SHORT else "float32")
    if variant == PLAIN:
        return plain_step(setting, config, size)
    return our_step(setting, config, size, context_of(setting, variant), cached=variant == CACHED)
