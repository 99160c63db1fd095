"""The GPU, TensorRT, and what its engines run on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from vitcompress.core.errors import CompressError
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import gpu_facts, gpu_name_and_capability, gpu_present
from vitcompress.exporters.tensorrt import MODULES, RTX_DEFAULT, capability_names, choose_flavour, load_tensorrt
from vitcompress.pipeline.doctor.finding import Finding
from vitcompress.pipeline.machine import package_version


def examine_engines() -> Iterator[Finding]:
    """Yield findings about the GPU, each flavour of TensorRT, and the one that would be used."""
    yield _gpu()
    working = {}
    for flavour, module in MODULES.items():
        version = package_version(flavour)
        if version is None:
            continue
        finding, loaded = _flavour(flavour, version, module)
        yield finding
        if loaded is not None:
            working[flavour] = loaded
    yield from _engine(working)
    yield from _others()


def _others() -> Iterator[Finding]:
    """Yield a finding about each target of another package."""
    try:
        found = [target for name, target in targets.registered().items() if name not in targets.BUILT_IN]
    except CompressError as error:
        yield Finding("broken", f"targets of other packages: {error}", "repair or uninstall that package")
        return
    for target in found:
        here = target.available()
        yield Finding("ok" if here.yes else "absent", f"{target.name} ({target.title}): {here.why}")


def _gpu() -> Finding:
    if not gpu_present():
        return Finding(
            "absent", "NVIDIA GPU: none; training runs on the CPU, engines are built but cannot be run or timed"
        )
    try:
        facts = gpu_facts()
    except CompressError as error:
        return Finding("broken", f"NVIDIA GPU: present, but it does not answer ({error})", "check it with nvidia-smi")
    driver = f"driver {facts.driver}, " if facts.driver else ""
    return Finding("ok", f"NVIDIA GPU: {facts.name}, compute capability {facts.capability}, {driver}CUDA {facts.cuda}")


def _flavour(flavour: str, version: str, module: str) -> tuple[Finding, Any]:
    """Return whether an installed flavour can be used, and its module if so."""
    reinstall = f"pip install --force-reinstall {flavour}"
    if importlib.util.find_spec(module) is None:
        # The libraries of `tensorrt` come from an index of NVIDIA's own; where that fails, only metadata is left.
        return Finding("broken", f"{flavour} {version}: installed without its module {module}", reinstall), None
    try:
        loaded = load_tensorrt(flavour)
        loaded.Builder  # noqa: B018 - a module without it is what a partial installation leaves
    except (CompressError, AttributeError) as error:
        return Finding("broken", f"{flavour} {version}: does not load ({error})", reinstall), None
    if flavour == "tensorrt":
        if gpu_present():
            name, capability = gpu_name_and_capability()
            return Finding("ok", f"tensorrt {version}: its engines run on {name} ({capability}) alone"), loaded
        lacking = f"tensorrt {version}: it builds and runs engines only where there is an NVIDIA GPU, and none is here"
        fix = "" if package_version("tensorrt-rtx") else "pip install tensorrt-rtx, which builds without a GPU"
        return Finding("absent", lacking, fix), None
    allowed = ", ".join(capability_names(loaded))
    what = f"its engines run on compute capabilities {', '.join(RTX_DEFAULT)}; it can also be told to build for any of"
    return Finding("ok", f"tensorrt-rtx {version}: {what} {allowed}"), loaded


def _engine(working: dict[str, Any]) -> Iterator[Finding]:
    """Yield which flavour a run with `export.target: auto` would use, and whether its engines run here."""
    try:
        flavour, why = choose_flavour("auto")
    except CompressError as error:
        flavour, why = "none", str(error)
    if flavour not in working:
        yield Finding("absent", f"engine: {why if flavour == 'none' else f'{flavour} would be used, but it is broken'}")
        return
    yield Finding("ok", f"engine: {why}")
    if flavour == "tensorrt-rtx" and gpu_present():
        name, capability = gpu_name_and_capability()
        if capability not in capability_names(working[flavour]):
            yield Finding(
                "absent",
                f"engine: tensorrt-rtx builds none for {name} ({capability}), so it cannot be run or timed here",
                "pip install tensorrt, which builds for the GPU it runs on",
            )
