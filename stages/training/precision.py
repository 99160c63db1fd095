"""What a training computes in, and attention in bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from vitcompress.stages.training.job import TrainingState

_SCORES_BYTES = 2 * 2**30
"""What attention may keep for the backward pass where its products are taken apart, of one process."""


def settle_precision(training: TrainingState) -> None:
    """Set what a training computes in, before its first step; one that goes on keeps what its checkpoint says."""
    progress, engine = training.progress, training.accelerator
    progress.precision = engine.precision = progress.precision or engine.precision
    if engine.precision != "bfloat16" or engine.device.type != "cpu":
        return
    # torch's fused attention has a backward pass for bfloat16 on CPUs that takes several times as long (half of a step
    # of DeiT-Tiny; benchmarks/training_epoch.py). Where all layers' scores take too much memory, it stays fused.
    modules: Iterator[Any] = training.model.modules()
    layers = [module for module in modules if isinstance(getattr(module, "fused_attn", None), bool)]
    images = (training.job.train.batch_size or 1) // engine.num_processes
    if images * scores_bytes(training.model, layers) <= _SCORES_BYTES:
        for layer in layers:
            layer.fused_attn = False


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
