"""The flavours of TensorRT: which are installed, which one can build here, and its module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
from typing import Any

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters.cuda import gpu_present

MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour, spelled as its distribution on PyPI, to the module it installs."""
RTX_DEFAULT = ("8.0", "8.6", "8.9", "12.0")
"""What ``tensorrt_rtx`` builds for when told nothing: Ampere and later, by its documentation. It cannot be asked."""


def installed_flavours() -> dict[str, str]:
    """Return the flavours that can be imported, with their versions, found without importing them."""
    found = {}
    for flavour, module in MODULES.items():
        # Metadata alone is not enough (a failed or partial install leaves it), nor is a module of unknown version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(flavour)
            if importlib.util.find_spec(module) is not None:
                found[flavour] = version
    return found


def choose_flavour(wanted: str) -> tuple[str, str]:
    """Return the flavour to build with, or ``none`` where ``auto`` finds none, and why, in words.

    An EnvironmentLacksError is raised where a flavour asked for by name cannot build here.
    """
    installed = installed_flavours()
    if wanted != "auto":
        if wanted not in installed:
            raise EnvironmentLacksError(f"{wanted} is not installed; run pip install {wanted}.")
        if wanted == "tensorrt" and not gpu_present():
            raise EnvironmentLacksError(
                "tensorrt needs an NVIDIA GPU to build an engine and none was found; build where there is one, "
                "or use tensorrt-rtx, which builds without."
            )
        return wanted, f"{wanted} {installed[wanted]} is installed"
    if "tensorrt" in installed and gpu_present():
        return "tensorrt", f"tensorrt {installed['tensorrt']} is installed and a GPU is here to build on"
    if "tensorrt-rtx" in installed:
        return "tensorrt-rtx", f"tensorrt-rtx {installed['tensorrt-rtx']} is installed and builds without a GPU"
    first = "tensorrt is installed but needs a GPU to build" if "tensorrt" in installed else "TensorRT is not installed"
    return "none", (
        f"{first}: run pip install tensorrt-rtx (builds anywhere) "
        "or, on a machine with an NVIDIA GPU, pip install tensorrt"
    )


def load_tensorrt(flavour: str) -> Any:
    """Return the module of a flavour; an EnvironmentLacksError is raised where it does not load."""
    try:
        return importlib.import_module(MODULES[flavour])
    except (ImportError, OSError) as error:
        raise EnvironmentLacksError(f"{flavour} cannot be loaded ({error}); run pip install {flavour}.") from error
