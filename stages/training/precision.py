"""What a training computes in: float32, or bfloat16 where a few of its own steps show that to be faster and as good.

On a CPU that multiplies bfloat16 in hardware (AMX, AVX512-BF16) a step of a network of full size takes a half to a
third of the time; of small operators, or where torch has no kernel for one, it can take longer. So steps are timed.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from vitcompress.core.machine import bfloat16_units
from vitcompress.stages.images.loaders import seeded
from vitcompress.stages.training.job import TrainingState
from vitcompress.stages.training.processes import from_main

Precision = Literal["float32", "bfloat16"]
BOTH: tuple[Precision, Precision] = ("float32", "bfloat16")

_PAIRS = 3
"""Timed steps of each precision, in turn, after one of each that is not timed."""
_PIXELS_A_THREAD = 8 * 224 * 224
"""Of a timed step's images, at most: the operators are of full size then, and the steps cost a training little."""
MARGIN = 1.1
"""How much faster bfloat16 has to be; less is within what a busy machine does to a few steps."""
LARGEST_LOSS_DIFFERENCE = 0.02
"""Relative. bfloat16 keeps 8 bits, so one rounding is off by at most 0.4 %, and the roundings of a network average out:
a loss that is off by five times as much is computed wrongly."""
LEAST_GRADIENT_COSINE = 0.9
"""Between the gradients of both precisions on the same images, of which roundings take little: a wrong operator gives
far less."""
_SCORES_BYTES = 2 * 2**30
"""What attention may keep for the backward pass where its products are taken apart, of one process."""


@dataclass(frozen=True)
class Step:
    """One forward and backward pass."""

    seconds: float
    loss: float


def settle_precision(training: TrainingState) -> None:
    """Decide what a training computes in, before its first step; one that goes on keeps what its checkpoint says."""
    progress, engine, config = training.progress, training.accelerator, training.config
    if not progress.precision:
        progress.precision = engine.precision
        able = engine.device.type != "cpu" or bool(bfloat16_units())
        if config.precision == "measure" and able and engine.device.type == "cpu":
            progress.precision = _measured(training)
        elif config.precision == "bfloat16" and not able:
            training.context.say(
                f"{training.job.name}: computing in bfloat16, as asked; this CPU has neither AMX nor AVX512-BF16, so "
                "it is likely slower than float32"
            )
    engine.precision = progress.precision
    _arrange_attention(training, separate=progress.precision == "bfloat16")


def _measured(training: TrainingState) -> Precision:
    """Return which precision the main process's steps speak for, in every process, and say its numbers."""
    with _without_trace(training):
        batch = _first_batch(training)
        steps: dict[Precision, list[Step]] = {precision: [] for precision in BOTH}
        gradients = []
        for precision in BOTH:  # to warm up
            _step(training, precision, batch)
            weights = training.model.parameters()
            gradients.append([one.grad for one in weights if one.grad is not None])
        cosine = _cosine(*gradients)
        del gradients
        for number in range(_PAIRS):
            for precision in BOTH if number % 2 else reversed(BOTH):
                steps[precision].append(_step(training, precision, batch))
    chosen, why = from_main(judge(steps["float32"], steps["bfloat16"], cosine, len(batch[0])))
    training.context.say(f"{training.job.name}: {why}")
    return chosen


def judge(full: list[Step], half: list[Step], cosine: float, images: int) -> tuple[Precision, str]:
    """Return which precision is kept, and why in words with the numbers.

    Args:
        full: steps in float32.
        half: steps in bfloat16, each taken next to the one of ``full`` at its position.
        cosine: between the gradients of both.
        images: of each step.
    """
    times = statistics.median(one.seconds / other.seconds for one, other in zip(full, half, strict=True))
    loss, other = full[0].loss, half[0].loss
    apart = abs(other - loss) / max(abs(loss), 1e-12)
    found = (
        f"{times:.2f} times as fast as float32 over {len(full)} steps of {images} images, loss {other:.4g} against "
        f"{loss:.4g}, gradients alike by {cosine:.3f} (cosine)"
    )
    if not (apart <= LARGEST_LOSS_DIFFERENCE and cosine >= LEAST_GRADIENT_COSINE):  # of a NaN neither holds
        return "float32", f"float32, because bfloat16 gives other numbers ({found})"
    if times < MARGIN:
        return "float32", f"float32, because bfloat16 does not pay ({found})"
    return "bfloat16", f"bfloat16: {found}"


def _first_batch(training: TrainingState) -> list[Tensor]:
    """Return the training's first batch, loaded in this process, on the device."""
    loader = training.job.train
    most = (loader.batch_size or 1) // training.accelerator.num_processes
    dataset: Any = loader.dataset
    stream = isinstance(dataset, torch.utils.data.IterableDataset)
    items = iter(dataset) if stream else (dataset[key] for key in loader.sampler)
    first = next(items)
    pixels = math.prod(loader.collate_fn([first])[0].shape[-2:])
    count = min(most, _PIXELS_A_THREAD * torch.get_num_threads() // pixels)
    batch = loader.collate_fn([first, *itertools.islice(items, max(0, count - 1))])
    moved: list[Tensor] = list(send_to_device(batch, training.accelerator.device))
    return moved


def _step(training: TrainingState, precision: Precision, batch: list[Tensor]) -> Step:
    """Take a forward and a backward pass, whose gradient stays; the weights do not change."""
    engine, model = training.accelerator, training.model
    engine.precision = precision
    _arrange_attention(training, separate=precision == "bfloat16")
    model.zero_grad(set_to_none=True)
    with seeded(0):  # both drop the same activations
        started = time.perf_counter()
        with engine.no_sync(model):
            with engine.autocast():
                loss = torch.stack(list(training.job.loss(model, *batch).values())).sum()
            torch.autograd.backward(loss)
        seconds = time.perf_counter() - started
    return Step(seconds, float(loss.detach()))


def _cosine(one: list[Tensor], other: list[Tensor]) -> float:
    """Return the cosine of two gradients, each a tensor for every weight; sums are in float64."""

    def product(left: list[Tensor], right: list[Tensor]) -> float:
        return sum(float((a * b).sum(dtype=torch.float64)) for a, b in zip(left, right, strict=True))

    length = math.sqrt(product(one, one) * product(other, other))
    return product(one, other) / length if length else math.nan


@contextmanager
def _without_trace(training: TrainingState) -> Iterator[None]:
    """Leave weights, buffers, gradients and generators as they were before the block, and compile nothing in it."""
    buffers = [(one, one.clone()) for one in training.model.buffers()]
    mode = training.model.training
    training.model.train()
    try:
        with seeded(0), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        training.model.zero_grad(set_to_none=True)
        training.model.train(mode)
        with torch.no_grad():
            for one, before in buffers:
                one.copy_(before)


def _arrange_attention(training: TrainingState, *, separate: bool) -> None:
    """Take attention apart into its products, on a CPU in bfloat16; put it together again elsewhere.

    torch's fused attention has a backward pass for bfloat16 on CPUs that takes several times as long as separate
    products do (half of a whole step of DeiT-Tiny; benchmarks/training_epoch.py shows both). What it saves is memory:
    where the scores of all layers would take too much of it, attention stays fused.
    """
    if training.accelerator.device.type != "cpu":
        return
    modules: Iterator[Any] = training.model.modules()
    layers = [module for module in modules if isinstance(getattr(module, "fused_attn", None), bool)]
    images = (training.job.train.batch_size or 1) // training.accelerator.num_processes
    fits = images * scores_bytes(training.model, layers) <= _SCORES_BYTES
    for layer in layers:
        if not hasattr(layer, "fused_as_built"):
            layer.fused_as_built = layer.fused_attn
        layer.fused_attn = layer.fused_as_built and not (separate and fits)


def scores_bytes(model: nn.Module, layers: list[Any]) -> int:
    """Return the bytes of one image's attention scores in bfloat16 over these layers, by timm's names."""
    modules: Iterator[Any] = model.modules()
    counts = (getattr(module, "num_patches", None) for module in modules)
    patches = max((count for count in counts if isinstance(count, int)), default=0)
    total = 0
    for layer in layers:
        heads, window = getattr(layer, "num_heads", 1), getattr(layer, "window_area", patches)
        total += 2 * int(heads) * patches * int(window)
    return total
