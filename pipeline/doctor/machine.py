"""The GPU, Python packages that are broken or do not go together, and what each target says of this machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vitcompress.core.errors import CompressError
from vitcompress.exporters import environments, targets
from vitcompress.exporters.cuda import gpu_facts, gpu_present
from vitcompress.exporters.precision.modelopt import PACKAGES
from vitcompress.pipeline.machine import package_version


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    state: Literal["ok", "absent", "broken"]
    """``absent`` takes a feature away; ``broken`` makes results wrong or runs fail."""
    what: str
    fix: str = ""


def examine_machine() -> Iterator[Finding]:
    """Yield findings about the GPU, torch, ONNX Runtime, ModelOpt, and every target."""
    yield from _gpu()
    yield from _torch()
    yield _onnxruntime()
    yield _modelopt()
    known = targets.BUILT_IN
    try:
        known = targets.registered()
    except CompressError as error:
        yield Finding("broken", f"targets of other packages: {error}", "repair or uninstall that package")
    for target in known.values():
        yield _target(target)
        yield from _environment(target)


def _gpu() -> Iterator[Finding]:
    if not gpu_present():
        yield Finding(
            "absent", "NVIDIA GPU: none; training runs on the CPU, engines are built but cannot be run or timed"
        )
        return
    try:
        facts = gpu_facts()
    except CompressError as error:
        yield Finding("broken", f"NVIDIA GPU: present, but it does not answer ({error})", "check it with nvidia-smi")
        return
    driver = f"driver {facts.driver}, " if facts.driver else ""
    yield Finding("ok", f"NVIDIA GPU: {facts.name}, compute capability {facts.capability}, {driver}CUDA {facts.cuda}")
    if facts.driver is None:
        what = "NVML: missing; times on the GPU are taken without clocks, throttling, other processes and energy"
        fix = "it comes with the driver; in a container, start that with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        yield Finding("absent", what, fix)


def _torch() -> Iterator[Finding]:
    found = ", ".join(f"{name} {package_version(name) or 'missing'}" for name in ("torch", "torchvision", "timm"))
    try:
        import torch

        importlib.import_module("torchvision")  # fails where it belongs to another release of torch
        importlib.import_module("timm")
    except (ImportError, RuntimeError, OSError) as error:
        what = f"torch: {found} do not import ({_first_line(error)})"
        yield Finding("broken", what, "install torch and torchvision of the same release")
        return
    yield Finding("ok", f"torch: {found}")
    if gpu_present() and not torch.cuda.is_available():
        what = "torch sees no CUDA although a GPU is present"
        yield Finding("broken", what, "install the CUDA build of torch for this driver")


def _onnxruntime() -> Finding:
    names = ("onnxruntime", "onnxruntime-gpu")
    installed = [f"{name} {version}" for name in names if (version := package_version(name))]
    if len(installed) != 1:
        what = (
            f"{' and '.join(installed)} are both installed and overwrite each other" if installed else "not installed"
        )
        return Finding(
            "broken", f"ONNX Runtime: {what}", f"pip uninstall -y {' '.join(names)}, then install one of them"
        )
    name = installed[0].partition(" ")[0]
    reinstall = f"pip install --force-reinstall --no-deps {name}"
    try:
        runtime = importlib.import_module("onnxruntime")
        # Removing one of the two packages leaves the other's metadata with half a module, or an empty one.
        runtime.InferenceSession  # noqa: B018 - missing is what is looked for
        providers = ", ".join(runtime.get_available_providers())
    except (ImportError, AttributeError, OSError) as error:
        what = f"ONNX Runtime: {installed[0]} is installed, but its module is broken ({_first_line(error)})"
        return Finding("broken", what, reinstall)
    if name == "onnxruntime-gpu" and gpu_present() and "CUDAExecutionProvider" not in providers:
        what = f"ONNX Runtime: {installed[0]} offers only {providers}"
        return Finding("broken", what, f"{reinstall}, built for this driver's CUDA")
    return Finding("ok", f"ONNX Runtime: {installed[0]} ({providers})")


def _modelopt() -> Finding:
    missing = [name for name in PACKAGES if package_version(name) is None]
    if missing:
        what = f"ModelOpt: bf16 and fp8 cannot be exported without {', '.join(missing)}"
        return Finding("absent", what, f"pip install {' '.join(missing)}")
    return Finding("ok", f"ModelOpt: nvidia-modelopt {package_version('nvidia-modelopt')}, for bf16 and fp8")


def _target(target: targets.Target) -> Finding:
    """Return whether this machine can build a target, and the library that it runs with loads."""
    here, what = target.available(), f"{target.name} ({target.title})"
    if not here.yes:
        return Finding("absent", f"{what}: {here.why}")
    try:
        target.load_library()
    except CompressError as error:
        fix = f"pip install --force-reinstall {target.distributions[0]}" if target.distributions else ""
        return Finding("broken", f"{what}: {error}", fix)
    return Finding("ok", f"{what}: {here.why}")


def _environment(target: targets.Target) -> Iterator[Finding]:
    """Yield what a target's own environment holds, where it has been made: what is missing, the target says."""
    folder, what = environments.environment(target.name), f"environment of {target.name}"
    fault = environments.fault(target)
    if fault and folder.exists():
        yield Finding("absent", f"{what} {fault}", f"compress target install {target.name}")
    elif not fault:
        packages = [f"{name} {version}" for name, version in environments.packages_of(target).items()]
        yield Finding("ok", f"{what}: {', '.join((str(folder), *packages))}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
