"""The one place where a device, its precision and the processes are chosen: Accelerate, on CPU, GPU or many of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.words import counted

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: while the main one checks a million images, the others have nothing to do.
``stages.training.pulse`` notices one that is stopped."""


class Engine(Accelerator):  # type: ignore[misc]  # Accelerate's classes are untyped
    """Accelerate's engine with a precision of its own.

    Accelerate keeps one precision for the whole process, and wraps the forward pass of every network it prepares; here
    the teacher's and the student's trainings may differ.
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
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if precision in ("float32", "bfloat16"):
        engine.precision = precision
    elif use_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        engine.precision = "bfloat16"
    return engine


def _meet_after_restart(backend: str) -> None:
    """Form the group under a name of its own where torchrun has started all processes anew.

    Its agent keeps the store, which still has the addresses of the processes that died (seen with gloo, torch 2.14). Of
    several machines each counts restarts for itself, so the names would differ, and nothing is done.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    ours = os.environ.get("GROUP_WORLD_SIZE") == "1" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if restarts == "0" or not ours or torch.distributed.is_initialized():
        return
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
def torch_threads(count: int) -> Iterator[None]:
    """Give torch's operators this many CPU threads for the time of a block; 0 leaves what there is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
