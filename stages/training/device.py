"""The one place where a device, its precision and the processes are chosen: Accelerate, on CPU, GPU or many of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.words import counted

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: while the main one checks a million images, the others have nothing to do.
``stages.training.pulse`` notices one that is stopped."""

Answers = tuple[Tensor | None, list[Tensor]]
"""Logits and taps of a network."""


class Engine(Accelerator):  # type: ignore[misc]  # Accelerate's classes are untyped
    """Accelerate's engine with a precision of its own.

    Accelerate keeps one precision for the whole process, and wraps the forward pass of every network it prepares; here
    the teacher's and the student's trainings may differ.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    """What ``autocast`` computes in; weights stay float32."""
    asynchronous: bool = False
    """Whether the device computes while the host goes on (a GPU), so that to read a value is to wait for it."""
    channels_last: bool = False
    """Whether images lie in memory channels last: the patch embedding, a convolution, is a GPU's only one."""

    def laid_out(self, images: Tensor) -> Tensor:
        """Return images ``[B, 3, S, S]`` as this device's networks are best given them; the values are the same."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    @contextmanager
    def autocast(self, autocast_handler: Any = None) -> Iterator[None]:
        """Compute the block in this engine's precision: matrix products and what torch's autocast lists with them.

        With float32 an autocast around the block does not reach into it.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            yield


def make_accelerator(
    device: str, *, accumulation: int = 1, precision: Literal["auto", "float32", "bfloat16"] = "auto"
) -> Any:
    """Return the Accelerate engine for this process; batch sizes are global (split over processes).

    The precision ``auto`` is bfloat16 where the GPU has it, float32 otherwise. An EnvironmentLacksError is raised if a
    GPU was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacksError(
            "device 'cuda' was asked for, and torch sees no GPU; use --set device=cpu, or install CUDA torch."
        )
    use_gpu = device != "cpu" and torch.cuda.is_available()
    _meet_after_restart("nccl" if use_gpu else "gloo")
    engine = Engine(
        cpu=not use_gpu,
        mixed_precision="no",
        gradient_accumulation_steps=accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True, non_blocking=use_gpu),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=PATIENCE),
            # Gradients lie in the buckets that are sent. No static_graph (tried with torch 2.14 and gloo): where terms
            # are measured in the first step, processes kept gradients of their own; accumulation failed an assertion.
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        ],
    )
    engine.asynchronous = engine.channels_last = use_gpu
    if use_gpu:
        torch.backends.cudnn.allow_tf32 = False  # torch's default is True; float32 is float32 but in ``fast_products``
    if precision in ("float32", "bfloat16"):
        engine.precision = precision
    elif use_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        engine.precision = "bfloat16"
    return engine


def _meet_after_restart(backend: str) -> None:
    """Form the group under a name of its own where torchrun has started all processes anew.

    Its agent keeps the store, which still has the addresses of the processes that died (seen with gloo, torch 2.14). Of
    several machines each counts restarts for itself, so the names would differ: an EnvironmentLacksError is raised.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if restarts == "0" or not kept or torch.distributed.is_initialized():
        return
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        raise EnvironmentLacksError(
            "torchrun started its processes again, and on several machines they cannot find each other in the store "
            "that it kept; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun (docs/clusters/README.md)."
        )
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port, processes = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"))
    store = TCPStore(address, int(port), int(processes), is_master=False, timeout=PATIENCE)
    torch.distributed.init_process_group(
        backend,
        store=PrefixStore(f"restart-{restarts}", store),
        rank=int(os.environ["RANK"]),
        world_size=int(processes),
        timeout=PATIENCE,
    )


def describe(device: str) -> str:
    """Say what computes."""
    if device != "cpu" and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}"


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 numbers as TF32 (10 bits of mantissa, sums in float32) within the block."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


class Beside:
    """Work on a GPU beside what its current stream does; anywhere else it is simply done first."""

    stream: torch.cuda.Stream | None = None

    def start(self, work: Callable[[Tensor], Answers], given: Tensor) -> Callable[[], Answers]:
        """Start ``work`` on what is ``given``; the function returned gives the answers to the current stream."""
        if given.device.type != "cuda":
            answers = work(given)
            return lambda: answers
        here = torch.cuda.current_stream(given.device)
        side = self.stream = self.stream or torch.cuda.Stream(given.device)  # type: ignore[no-untyped-call]
        side.wait_stream(here)  # what is given may not be there yet
        with torch.cuda.stream(side):
            logits, taps = work(given)
        given.record_stream(side)  # its memory is not used again before the work is done

        def joined() -> Answers:
            here.wait_stream(side)
            for answer in (logits, *taps):
                if answer is not None:
                    answer.record_stream(here)
            return logits, taps

        return joined


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give torch's operators this many CPU threads for the time of a block; 0 leaves what there is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
