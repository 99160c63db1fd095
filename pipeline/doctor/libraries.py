"""Python packages that are missing, broken, or do not go together."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator

from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.precision.modelopt import PACKAGES
from vitcompress.pipeline.doctor.finding import Finding
from vitcompress.pipeline.machine import package_version

_TORCH_TO_TORCHVISION = 15
"""torchvision 0.(n + 15) is built for torch 2.n, by its release table (0.15 for 2.0, 0.29 for 2.14)."""


def examine_libraries() -> Iterator[Finding]:
    """Yield findings about torch, Pillow, ONNX Runtime and ModelOpt."""
    yield from _torch()
    yield from _pillow()
    yield _onnxruntime()
    yield _modelopt()


def _torch() -> Iterator[Finding]:
    found = ", ".join(f"{name} {package_version(name) or 'missing'}" for name in ("torch", "torchvision", "timm"))
    try:
        import torch

        importlib.import_module("torchvision")
        importlib.import_module("timm")
    except (ImportError, RuntimeError, OSError) as error:
        yield Finding(
            "broken",
            f"torch: {found} do not import ({_first_line(error)})",
            "install torch and torchvision of the same release",
        )
        return
    if wanted := _torchvision_for(package_version("torch"), package_version("torchvision")):
        yield Finding("broken", f"torch: {found} do not go together", f"pip install 'torchvision=={wanted}.*'")
    else:
        yield Finding("ok", f"torch: {found}")
    if gpu_present() and not torch.cuda.is_available():
        yield Finding(
            "broken", "torch sees no CUDA although a GPU is present", "install the CUDA build of torch for this driver"
        )


def _torchvision_for(torch: str | None, torchvision: str | None) -> str | None:
    """Return the torchvision release that belongs to ``torch``; None when it is installed, or not known."""
    base = re.match(r"2\.(\d+)\b", torch or "")
    vision = re.match(r"0\.(\d+)\b", torchvision or "")
    if base is None or vision is None:
        return None
    wanted = int(base[1]) + _TORCH_TO_TORCHVISION
    return None if int(vision[1]) == wanted else f"0.{wanted}"


def _pillow() -> Iterator[Finding]:
    from PIL import Image, ImageOps

    version = package_version("pillow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            ImageOps.posterize(Image.new("RGB", (1, 1)), 0)  # what timm's RandAugment asks for at its weakest
    except ValueError as error:
        yield Finding(
            "broken",
            f"Pillow: {version} refuses what timm's RandAugment asks of it ({_first_line(error)})",
            "pip install 'pillow>=10,<13'",
        )
    else:
        yield Finding("ok", f"Pillow: {version}")


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
    name = "onnxruntime-gpu" if gpu else "onnxruntime"
    try:
        runtime = importlib.import_module("onnxruntime")
        # Removing one of the two packages leaves the other's metadata with half a module, or an empty one.
        runtime.InferenceSession  # noqa: B018 - missing is what is looked for
        providers = ", ".join(runtime.get_available_providers())
    except (ImportError, AttributeError, OSError) as error:
        return Finding(
            "broken",
            f"ONNX Runtime: {name} {cpu or gpu} is installed, but its module is broken ({_first_line(error)})",
            f"pip install --force-reinstall --no-deps {name}",
        )
    if gpu and gpu_present() and "CUDAExecutionProvider" not in providers:
        return Finding(
            "broken",
            f"ONNX Runtime: onnxruntime-gpu {gpu} offers only {providers}",
            "pip install --force-reinstall --no-deps onnxruntime-gpu, built for this driver's CUDA",
        )
    return Finding("ok", f"ONNX Runtime: {name} {cpu or gpu} ({providers})")


def _modelopt() -> Finding:
    versions = {name: package_version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if not missing:
        return Finding("ok", f"ModelOpt: nvidia-modelopt {versions['nvidia-modelopt']}, for bf16 and fp8")
    what = "not installed" if len(missing) == len(PACKAGES) else f"incomplete (no {', '.join(missing)})"
    return Finding("absent", f"ModelOpt: {what}; bf16 and fp8 cannot be exported", f"pip install {' '.join(missing)}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
