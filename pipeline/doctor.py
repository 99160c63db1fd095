"""`compress doctor`: what this machine can do, what it cannot, and how to mend it, found before a run finds out."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import CompressError
from exporters.cuda import gpu_present
from exporters.tensorrt import choose_flavour, installed_flavours
from pipeline.machine import package_version, processor

_RUN_GIB = 5


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    state: Literal["ok", "absent", "broken"]
    """``absent`` takes a feature away; ``broken`` makes results wrong or runs fail."""
    what: str
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, most basic first."""
    yield Finding("ok", f"processor: {processor()}")
    yield _gpu()
    yield from _torch()
    yield _onnxruntime()
    yield from _tensorrt()
    yield _disk()


def _gpu() -> Finding:
    if gpu_present():
        return Finding("ok", "NVIDIA GPU: present")
    return Finding("absent", "NVIDIA GPU: none; training runs on the CPU, engines are built but cannot be run or timed")


def _torch() -> Iterator[Finding]:
    try:
        import torch

        importlib.import_module("torchvision")
        importlib.import_module("timm")
    except (ImportError, RuntimeError, OSError) as error:
        found = ", ".join(f"{name} {package_version(name) or 'missing'}" for name in ("torch", "torchvision", "timm"))
        yield Finding(
            "broken",
            f"torch: {found} do not import ({str(error).splitlines()[0]})",
            "install torch and torchvision of the same release",
        )
        return
    versions = ", ".join(f"{name} {package_version(name)}" for name in ("torch", "torchvision", "timm"))
    yield Finding("ok", f"torch: {versions}")
    if gpu_present() and not torch.cuda.is_available():
        yield Finding(
            "broken", "torch sees no CUDA although a GPU is present", "install the CUDA build of torch for this driver"
        )


def _onnxruntime() -> Finding:
    cpu, gpu = package_version("onnxruntime"), package_version("onnxruntime-gpu")
    if cpu and gpu:
        return Finding(
            "broken",
            f"ONNX Runtime: onnxruntime {cpu} and onnxruntime-gpu {gpu} are both installed and overwrite each other",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them",
        )
    if not (cpu or gpu):
        return Finding("broken", "ONNX Runtime: not installed", "pip install onnxruntime (or onnxruntime-gpu)")
    try:
        runtime = importlib.import_module("onnxruntime")
        providers = ", ".join(runtime.get_available_providers())
    except (ImportError, AttributeError) as error:
        return Finding(
            "broken", f"ONNX Runtime: does not import ({error})", "pip install --force-reinstall onnxruntime"
        )
    if gpu and gpu_present() and "CUDAExecutionProvider" not in providers:
        return Finding(
            "broken", f"ONNX Runtime: onnxruntime-gpu {gpu} offers only {providers}", "reinstall onnxruntime-gpu"
        )
    return Finding(
        "ok", f"ONNX Runtime: {'onnxruntime-gpu ' + gpu if gpu else 'onnxruntime ' + str(cpu)} ({providers})"
    )


def _tensorrt() -> Iterator[Finding]:
    for flavour, version in installed_flavours().items():
        try:
            importlib.import_module(flavour.replace("-", "_"))
        except (ImportError, OSError) as error:
            yield Finding(
                "broken", f"{flavour} {version}: does not import ({error})", f"pip install --force-reinstall {flavour}"
            )
        else:
            yield Finding("ok", f"{flavour} {version}")
    try:
        flavour, why = choose_flavour("auto")
    except CompressError as error:
        flavour, why = "none", str(error)
    yield Finding("absent" if flavour == "none" else "ok", f"engine: {why}")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < _RUN_GIB:
        return Finding(
            "broken", f"disk: {free:.1f} GiB free here", f"free at least {_RUN_GIB} GiB, or give an --output elsewhere"
        )
    return Finding("ok", f"disk: {free:.0f} GiB free here")
