from __future__ import annotations

import errno
import importlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters.cuda import GpuFacts
from vitcompress.pipeline.doctor import engines, folder, libraries
from vitcompress.pipeline.doctor.finding import Finding

A10 = GpuFacts(name="NVIDIA A10", capability="8.6", cuda="13.0", driver="580.65.06", sm_clock_mhz=1410)
CURRENT = {"torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31", "pillow": "12.3.0"}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which distributions are installed, by name and version."""

    def install(**versions: str) -> None:
        found = {**CURRENT, **{name.replace("_", "-"): version for name, version in versions.items()}}
        for module in (libraries, engines):
            monkeypatch.setattr(module, "package_version", found.get)

    install()
    return install


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, str], None]:
    """Say whether there is a GPU, and which compute capability it has."""

    def present(there: bool, capability: str = "8.6") -> None:
        for module in (libraries, engines, folder):
            monkeypatch.setattr(module, "gpu_present", lambda: there)
        monkeypatch.setattr("vitcompress.exporters.tensorrt.flavours.gpu_present", lambda: there)
        monkeypatch.setattr(engines, "gpu_name_and_capability", lambda: ("NVIDIA A10", capability))
        monkeypatch.setattr(engines, "gpu_facts", lambda: A10)

    present(False)
    return present


def providers(*names: str) -> dict[str, Any]:
    return {"InferenceSession": object, "get_available_providers": lambda: list(names)}


def about(findings: Any, words: str) -> Finding:
    (found,) = [finding for finding in findings if words in finding.what]
    return found


GPU_1 = {"onnxruntime_gpu": "1.31"}
CPU_1 = {"onnxruntime": "1.32"}
ON_CPU, ON_GPU = providers("CPUExecutionProvider"), providers("CUDAExecutionProvider")
REINSTALL = "pip install --force-reinstall --no-deps onnxruntime"


@pytest.mark.parametrize(
    ("installed", "module", "there", "what", "fix"),
    [
        ({}, {}, False, "not installed", "pip install onnxruntime (or onnxruntime-gpu)"),
        (
            CPU_1 | GPU_1,
            {},
            False,
            "1.32 and onnxruntime-gpu 1.31 are both installed",
            "pip uninstall -y onnxruntime onn",
        ),
        (CPU_1, {}, False, "onnxruntime 1.32 is installed, but its module is broken", REINSTALL),
        (CPU_1, None, False, "onnxruntime 1.32 is installed, but its module is broken", REINSTALL),
        (GPU_1, {"InferenceSession": object}, False, "but its module is broken", f"{REINSTALL}-gpu"),
        (GPU_1, {"get_available_providers": list}, False, "but its module is broken", f"{REINSTALL}-gpu"),
        (GPU_1, ON_CPU, False, "onnxruntime-gpu 1.31 (CPUExecutionProvider)", ""),
        (GPU_1, ON_CPU, True, "onnxruntime-gpu 1.31 offers only CPUExecutionProvider", f"{REINSTALL}-gpu, built for"),
        (GPU_1, ON_GPU, True, "onnxruntime-gpu 1.31 (CUDAExecutionProvider)", ""),
    ],
)
def test_what_is_said_of_onnxruntime(
    packages: Any,
    gpu: Any,
    monkeypatch: pytest.MonkeyPatch,
    installed: Any,
    module: Any,
    there: Any,
    what: str,
    fix: str,
) -> None:
    packages(**installed)
    gpu(there)
    # Importing what is None fails.
    monkeypatch.setitem(sys.modules, "onnxruntime", None if module is None else SimpleNamespace(**module))
    found = libraries._onnxruntime()
    assert (found.state, bool(found.fix)) == (("broken", True) if fix else ("ok", False))
    assert what in found.what
    assert found.fix.startswith(fix)


@pytest.mark.parametrize(
    ("torch", "torchvision", "wanted"),
    [
        ("2.14.1", "0.29.1", None),
        ("2.9.0+cpu", "0.24.1+cpu", None),
        ("2.14.1", "0.28.0", "0.29"),
        ("3.0.0", "0.40.0", None),
        ("2.14.1", "1.0", None),
    ],
)
def test_torchvision_belongs_to_one_torch(torch: str, torchvision: str, wanted: str | None) -> None:
    assert libraries._torchvision_for(torch, torchvision) == wanted


def test_torch_that_does_not_fit_or_import_is_one_line(
    packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(torchvision="0.28.0")
    found = about(libraries._torch(), "do not go together")
    assert (found.state, found.fix) == ("broken", "pip install 'torchvision==0.29.*'")

    def fail(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist\nand much more")

    monkeypatch.setattr(libraries.importlib, "import_module", fail)
    (found,) = libraries._torch()
    assert found.state == "broken"
    assert found.what.endswith("do not import (operator torchvision::nms does not exist)")


def test_a_gpu_that_torch_does_not_see_is_broken(packages: Callable[..., None], gpu: Callable[..., None]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    gpu(True)
    assert about(libraries._torch(), "sees no CUDA").state == "broken"


def test_a_pillow_that_randaugment_cannot_use_is_broken(
    packages: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageOps

    assert [finding.state for finding in libraries._pillow()] == ["ok"]

    def refuse(image: Any, bits: int) -> None:
        raise ValueError(f"bits must be 1 to 8, not {bits}")

    monkeypatch.setattr(ImageOps, "posterize", refuse)
    packages(pillow="13.0.0")
    (found,) = libraries._pillow()
    assert found == Finding(
        "broken",
        "Pillow: 13.0.0 refuses what timm's RandAugment asks of it (bits must be 1 to 8, not 0)",
        "pip install 'pillow>=10,<13'",
    )


def test_modelopt_is_an_extra(packages: Callable[..., None]) -> None:
    packages()
    none = libraries._modelopt()
    assert (none.state, none.fix) == ("absent", f"pip install {' '.join(libraries.PACKAGES)}")
    assert "bf16 and fp8 cannot be exported" in none.what
    packages(nvidia_modelopt="0.47.0", cppimport="1", lief="1", onnxconverter_common="1")
    part = libraries._modelopt()
    assert (part.state, part.fix) == ("absent", "pip install onnx-graphsurgeon")
    packages(nvidia_modelopt="0.47.0", cppimport="1", lief="1", onnxconverter_common="1", onnx_graphsurgeon="1")
    assert libraries._modelopt() == Finding("ok", "ModelOpt: nvidia-modelopt 0.47.0, for bf16 and fp8")


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, packages: Callable[..., None]) -> Callable[..., None]:
    """Install flavours of TensorRT as these modules; an error instead of a module does not load."""

    def install(**modules: Any) -> None:
        flavours = {name.replace("_", "-"): module for name, module in modules.items()}
        packages(**dict.fromkeys(flavours, "11.4"))
        monkeypatch.setattr(
            "vitcompress.exporters.tensorrt.flavours.installed_flavours", lambda: dict.fromkeys(flavours, "11.4")
        )
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: flavours.get(name.replace("_", "-")))

        def load(flavour: str) -> Any:
            if isinstance(flavours[flavour], Exception):
                raise flavours[flavour]
            return flavours[flavour]

        monkeypatch.setattr(engines, "load_tensorrt", load)

    return install


WORKING = SimpleNamespace(
    Builder=object, ComputeCapability=SimpleNamespace(__members__={"NONE": 0, "SM80": 80, "SM86": 86, "SM120": 120})
)


def test_without_tensorrt_or_a_gpu_for_it_there_is_no_engine(
    tensorrt: Callable[..., None], gpu: Callable[..., None]
) -> None:
    tensorrt()
    found = about(engines.examine_engines(), "engine:")
    assert found.state == "absent"
    assert "TensorRT is not installed: run pip install tensorrt-rtx (builds anywhere)" in found.what
    tensorrt(tensorrt=WORKING)
    found = about(engines.examine_engines(), "tensorrt 11.4: it builds and runs engines only where there is an NVIDIA")
    assert (found.state, found.fix) == ("absent", "pip install tensorrt-rtx, which builds without a GPU")
    assert about(engines.examine_engines(), "engine: ").state == "absent"


def test_what_engines_run_on_is_told(tensorrt: Callable[..., None], gpu: Callable[..., None]) -> None:
    tensorrt(tensorrt=WORKING, tensorrt_rtx=WORKING)
    rtx = about(engines.examine_engines(), "tensorrt-rtx 11.4:")
    assert rtx.state == "ok"
    assert rtx.what.endswith("8.0, 8.6, 8.9, 12.0; it can also be told to build for any of 8.0, 8.6, 12.0")
    gpu(True)
    assert about(engines.examine_engines(), "tensorrt 11.4: its engines run on NVIDIA A10 (8.6) alone").state == "ok"
    assert about(engines.examine_engines(), "engine: tensorrt 11.4").state == "ok"
    assert about(engines.examine_engines(), "NVIDIA GPU: ").what.endswith("capability 8.6, driver 580.65.06, CUDA 13.0")


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_named(
    tensorrt: Callable[..., None], gpu: Callable[..., None]
) -> None:
    tensorrt(tensorrt_rtx=WORKING)
    gpu(True, "9.0")
    found = about(engines.examine_engines(), "builds none for NVIDIA A10 (9.0)")
    assert (found.state, found.fix) == ("absent", "pip install tensorrt, which builds for the GPU it runs on")
    gpu(True, "8.6")
    assert not [finding for finding in engines.examine_engines() if "builds none for" in finding.what]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (EnvironmentLacksError("libnvinfer is missing"), "does not load (libnvinfer is missing)"),
        (SimpleNamespace(), "does not load ("),
        (None, "installed without its module tensorrt_rtx"),
    ],
)
def test_a_broken_tensorrt_is_named(
    tensorrt: Callable[..., None], gpu: Callable[..., None], module: Any, words: str
) -> None:
    tensorrt(tensorrt_rtx=module)
    found = about(engines.examine_engines(), "tensorrt-rtx 11.4: ")
    assert (found.state, found.fix) == ("broken", "pip install --force-reinstall tensorrt-rtx")
    assert words in found.what
    assert about(engines.examine_engines(), "engine: ").state == "absent"


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    assert about(folder.examine_here(tmp_path), f"can be written in {tmp_path / 'runs'}").state == "ok"
    assert [entry.name for entry in tmp_path.rglob("*")] == ["runs"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 2**30))
    full = about(folder.examine_here(tmp_path), "disk: 2.0 GiB free here")
    assert (full.state, full.fix) == ("broken", "free at least 5 GiB, or give an --output elsewhere")


@pytest.mark.parametrize(("number", "words"), [(errno.EROFS, "change its permissions"), (errno.ENOSPC, "free space")])
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(number, "no way")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    found = about(folder.examine_here(tmp_path), f"nothing can be written in {tmp_path} (no way)")
    assert found.state == "broken"
    assert found.fix.startswith(words)
    assert found.fix.endswith("give an --output elsewhere")
