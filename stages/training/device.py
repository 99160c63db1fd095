"""The one place where a device, its precision and the processes are chosen: Accelerate, on CPU, GPU or many of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs

from core.errors import EnvironmentLacksError
from core.words import counted

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: while the main one checks a million images, the others have nothing to do. A
process that dies is noticed at once all the same, by its closed connection and by whatever launched it."""


class Engine(Accelerator):  # type: ignore[misc]  # Accelerate's classes are untyped
    """Accelerate's engine with a precision of its own.

    Accelerate keeps one precision for the whole process, and wraps the forward pass of every network it prepares; here
    the teacher's and the student's trainings may differ, and one is changed after a few measured steps.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    """What ``autocast`` computes in; weights stay float32."""

    @contextmanager
    def autocast(self, autocast_handler: Any = None) -> Iterator[None]:
        """Compute the block in this engine's precision: matrix products and what torch's autocast lists with them.

        With float32 an autocast around the block does not reach into it.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            yield


def make_accelerator(
    device: str,
    *,
    accumulation: int = 1,
    precision: Literal["auto", "float32", "bfloat16", "measure"] = "auto",
) -> Any:
    """The Accelerate engine for this process; batch sizes are global (split over processes).

    Args:
        device: ``cpu``, ``cuda`` or ``auto``.
        accumulation: forward passes that make up one optimizer step.
        precision: auto, and until it is measured: bfloat16 where the GPU has it, float32 otherwise.

    Raises:
        EnvironmentLacksError: a GPU was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacksError(
            "device 'cuda' was asked for, and torch sees no GPU; use --set device=cpu, or install CUDA torch."
        )
    use_gpu = device != "cpu" and torch.cuda.is_available()
    engine = Engine(
        cpu=not use_gpu,
        mixed_precision="no",
        gradient_accumulation_steps=accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if precision in ("float32", "bfloat16"):
        engine.precision = precision
    elif use_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        engine.precision = "bfloat16"
    return engine


def describe(device: str) -> str:
    """What computes, in words."""
    if device != "cpu" and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give torch's operators this many CPU threads for the time of a block; 0 leaves what there is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
