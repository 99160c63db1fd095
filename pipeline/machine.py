"""What this machine is and what is installed on it (torch-free)."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from vitcompress.core.machine import processor, usable_cores
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.tensorrt import installed_flavours

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "onnx", "onnxslim", "numpy", "scikit-learn")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def package_version(name: str) -> str | None:
    """Return the installed version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def threads_each(processes: int) -> int:
    """Threads of each of several processes that share the cores."""
    return max(1, usable_cores() // processes)


def environment() -> dict[str, Any]:
    """Return what a measurement depends on, for the report and for the fingerprint of measuring stages."""
    return {
        "compress": package_version("vitcompress") or "not installed",
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu_present(),
        "packages": {name: found for name in (*_PACKAGES, *_RUNTIMES) if (found := package_version(name))},
        "tensorrt": installed_flavours(),
    }
