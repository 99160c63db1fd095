"""One step of distillation: this project's loop against a plain eager one, interleaved in one run.

    python benchmarks/distill_step.py                    # the table of docs/performance.md, about 10 minutes on 2 cores
    python benchmarks/distill_step.py --batch 4 --rounds 3

The plain loop is the published recipe written down as it is read: the last layer's tap, soft logits and spectral
loss, AdamW, PyTorch as it comes. Ours is the training loop of `compress run` itself, with all that it adds (averaged
weights, gradient norm, checks, metrics). Every round runs each variant once, in an order drawn anew, then a matrix
product and a copy, which tell what the machine could do at that moment.

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
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import psutil
import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.context import Context
from core.preprocess import PreprocessSpec
from core.rundir import RunDirectory
from pipeline.machine import processor
from stages.distill import job as distill_job
from stages.distill.cache.config import CacheConfig
from stages.distill.cache.fill import fill, parts_of
from stages.distill.cache.store import Store
from stages.distill.cache.views import CachedViews
from stages.distill.config import DistillConfig
from stages.distill.model import AdaptedTeacher, FrozenTeacher, TappedStudent
from stages.distill.pairs import layer_pairs, teacher_layers
from stages.images.loaders import ViewKey, train_loader
from stages.models.build import cost_of, input_size
from stages.models.names import resolve_architecture
from stages.training.compilation import compile_in_place
from stages.training.loop import Job, Training
from stages.training.memory import PeakMemory, release_unused

CLASSES = 1000
ALLOWED_DIFFERENCE = 1e-3
PLAIN, LIVE, CACHED = "plain eager loop", "ours, live teacher, compiled", "ours, cached teacher, compiled"
SHORT = "ours, live teacher in bfloat16, compiled"
VARIANTS = (PLAIN, LIVE, SHORT, CACHED)
MODEL_PARTS = ("teacher", "student forward", "backward", "losses")
UPDATE_PARTS = ("optimizer", "averaged weights")
TIMES_MOVED = {"optimizer": 8, "averaged weights": 3}
"""Reads and writes of every weight: AdamW reads and writes weight and two moments and reads the gradient, whose norm
reads it once more; averaging reads two and writes one."""
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
    folder: Path


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
    return teacher, student


def batches(views: Any, batch: int) -> Iterator[Any]:
    """The batches of training, one epoch after the other, the same for every variant."""
    loader: DataLoader[Any] = train_loader(views, batch_size=batch, seed=0, workers=0, fixed_views=1)
    sampler: Any = loader.sampler
    for epoch in range(10**9):
        sampler.set_epoch(epoch)
        yield from loader


Step = Callable[[], tuple[float, dict[str, float]]]
"""One step: its loss, and seconds by part."""


def plain_step(setting: Setting, config: DistillConfig, size: int) -> Step:
    """The published loop, as plain as it can be written."""
    teacher, student = networks(setting)
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

    def step() -> tuple[float, dict[str, float]]:
        clock = Clock()
        with clock.running("data"):
            images, labels = next(data)
        with clock.running("teacher"), torch.no_grad():
            teacher_logits, teacher_tap = tapped(teacher, images, last_teacher)
        with clock.running("student forward"):
            logits, tap = tapped(student, images, last_student)
        with clock.running("losses"):
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
        return float(loss.detach()), dict(clock.spent)

    return step


def our_step(setting: Setting, config: DistillConfig, size: int, context: Context, *, cached: bool) -> Step:
    """A step of `compress run`: its job, its loop, its cache."""
    network, student = networks(setting)
    pairs = layer_pairs(config, len(student.blocks), len(network.blocks))
    precision = torch.bfloat16 if config.teacher_precision == "bfloat16" else torch.float32
    adapted = AdaptedTeacher(network, teacher_layers(pairs), HALF, HALF, precision=precision)
    teacher: FrozenTeacher | None = FrozenTeacher(adapted)
    tapped = TappedStudent(student, pairs)
    compile_in_place(tapped)
    if not cached:
        compile_in_place(adapted)
    views: Any = Pictures(setting.batch * setting.steps, size)
    if cached and teacher is not None:
        parts = parts_of(teacher, views[ViewKey(0, 0)][0][None], teacher_layers(pairs))
        key = {"benchmark": setting.teacher, "batch": setting.batch}
        store = Store(CacheConfig(), key, parts, images=len(views), views=1, run_folder=setting.folder / "cache")
        fill(store, views, teacher, context, batch_size=setting.batch)
        views, teacher = CachedViews(views, store), None
    clock = Clock()
    if teacher is not None:
        teacher.forward = clock.wrap("teacher", teacher.forward)  # type: ignore[method-assign]
    loss = clock.wrap("losses", partial(distill_job._loss, config, pairs, teacher))
    job = Job(
        name="student",
        model=tapped,
        network=distill_job._network,
        loss=lambda model, *batch: loss(clock.wrap("student forward", model), *batch),
        train=train_loader(views, batch_size=setting.batch, seed=0, workers=0, fixed_views=1),
        val=DataLoader(views, batch_size=setting.batch),
        folder=setting.folder / "checkpoints",
        fingerprint="benchmark",
    )
    training = Training(job, config, 1, context)
    training.model.train()
    accelerator = training.accelerator
    accelerator.backward = clock.wrap("backward", accelerator.backward)
    accelerator.clip_grad_norm_ = clock.wrap("optimizer", accelerator.clip_grad_norm_)
    training.optimizer.step = clock.wrap("optimizer", training.optimizer.step)
    training.optimizer.zero_grad = clock.wrap("optimizer", training.optimizer.zero_grad)
    training.ema.update = clock.wrap("averaged weights", training.ema.update)  # type: ignore[union-attr,method-assign]
    data = batches(views, setting.batch)

    def step() -> tuple[float, dict[str, float]]:
        clock.spent.clear()
        before = sum(training.progress.sums.values())
        with clock.running("loop"):
            with clock.running("data"):
                batch = next(data)
            training.step(*batch)
        return sum(training.progress.sums.values()) - before, dict(clock.spent)

    return step


def make(variant: str, setting: Setting, size: int) -> Step:
    """A variant ready to step."""
    rate = 5e-4 * setting.batch / 512
    config = DistillConfig(
        batch_size=setting.batch,
        lr=rate,
        min_lr=rate,
        warmup_epochs=0.0,
        warmup_lr=0.0,
        clip_grad=None,
        ema_decay=0.99996,
        ema_warmup=False,
        teacher_precision="bfloat16" if variant == SHORT else "float32",
    )
    if variant == PLAIN:
        return plain_step(setting, config, size)
    run = RunDirectory.claim(setting.folder / variant.replace(" ", "-"), {"benchmark": variant})
    context = Context(run=run, seed=0, device="cpu", console=Console(quiet=True))
    return our_step(setting, config, size, context, cached=variant == CACHED)


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
            started = time.perf_counter()
            loss, spent = steps[variant]()
            took = time.perf_counter() - started
            losses[variant].append(loss)
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
        work = arithmetic["student"] + (0.0 if variant == CACHED else arithmetic["teacher"])
        moved = 4e-9 * weights * sum(times for name, times in TIMES_MOVED.items() if part[name])
        lines.append(
            f"| {variant} | {part['step']:.3f} | {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] | "
            f"{100 * (part['step'] - models - update) / part['step']:.1f} % | "
            f"{100 * (part['step'] - models) / part['step']:.1f} % | {100 * work / models / 1e9 / gemm:.0f} % | "
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
