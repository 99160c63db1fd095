"""Whether compiling the networks pays, and doing it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from vitcompress.core.errors import EnvironmentLacksError, UsageError

Setting = Literal["auto", "on", "off", "graphs"]

RATE = {"cpu": 5e10, "cuda": 3e13}
"""Floating-point operations a second that training reaches, to the order of magnitude; fixed, so that an interrupted
run decides the same when it goes on."""
CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch keeps compiled code."""
_WORTH_SECONDS = 900
"""Compiling costs up to a minute and saves about a tenth (docs/performance-step.md): it pays after ten minutes."""


def decide(setting: Setting, device: str, operations: float, parts: int = 1) -> tuple[bool, str]:
    """Return whether to compile, and why (empty where it was asked for).

    ``operations`` are the floating-point operations of the whole training, ``parts`` what a batch is divided into
    (processes times accumulation). An EnvironmentLacksError is raised if compiling was asked for by name, and there is
    no compiler, or no GPU for graphs; a UsageError if graphs were, and a step has several parts.
    """
    if setting == "off":
        return False, ""
    lack = _lack(device)
    if setting == "graphs" and device == "cpu":
        raise EnvironmentLacksError("compile is 'graphs', but CUDA graphs need a GPU; use compile=on or compile=off.")
    if setting == "graphs" and parts > 1:  # gradients would stay in the graphs' memory, which the next part writes
        raise UsageError(
            f"compile is 'graphs', but a step is divided into {parts} parts (processes x accumulation), and graphs "
            "allow one; use compile=on."
        )
    if setting != "auto":
        if lack:
            raise EnvironmentLacksError(f"compile is '{setting}', but {lack}; install it, or use compile=off.")
        return True, ""
    seconds = operations / RATE[device]
    size = f"about {seconds / 60:.0f} minutes of arithmetic" if seconds >= 60 else "under a minute of arithmetic"
    if seconds < _WORTH_SECONDS:
        return False, f"{size} is too short to pay for compiling"
    return (False, f"it would pay ({size}), but {lack}") if lack else (True, f"{size} pays for compiling")


def _lack(device: str) -> str | None:
    """Return what torch.compile needs and this machine lacks, if anything."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton does not support this GPU"
    return None if shutil.which("g++") or shutil.which("clang++") else "there is no C++ compiler (g++)"


def require_compiler(setting: str, device: str) -> None:
    """Raise an EnvironmentLacksError where a ``setting``, such as ``verify.x=compiled``, asks for what is not here."""
    if lack := _lack(device):
        raise EnvironmentLacksError(f"{setting} needs torch.compile, but {lack}; install it, or choose another.")


def compile_in_place(*modules: nn.Module, graphs: bool = False) -> None:
    """Compile for the one batch shape that training has, ``graphs``: with CUDA graphs; parameters keep their names.

    An EnvironmentLacksError is raised if there is no compiler on this machine.
    """
    lack = _lack(next(modules[0].parameters()).device.type)
    if lack:
        raise EnvironmentLacksError(
            f"this training is a compiled one, as decided where it began, but {lack}; install it to go on, or train "
            "anew with compile=off."
        )
    keep_instruction_sets_apart()
    for module in modules:
        module.compile(dynamic=False, mode="reduce-overhead" if graphs else None)


def keep_instruction_sets_apart() -> None:
    """Give compiled code a folder for each instruction set, below the one that is configured or a temporary one.

    torch's key of a compiled graph does not hold the instruction set: code for AVX-512 that was taken again under AVX2
    gave outputs wrong by 10^5, without a word (torch 2.14.1, `ATEN_CPU_CAPABILITY=avx2` after a process without it).
    """
    own = torch.backends.cpu.get_cpu_capability().lower()
    folder = Path(os.environ.get(CACHE) or Path(tempfile.gettempdir()) / f"compress-compiled-{os.getuid()}")
    if folder.name != own:
        os.environ[CACHE] = str(folder / own)
