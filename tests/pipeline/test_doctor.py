"""What `compress doctor` says of a machine, of its packages and targets, and of the folder it is called in."""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import GpuFacts
from vitcompress.exporters.targets import Availability, Target
from vitcompress.pipeline.doctor import folder, machine
from vitcompress.pipeline.doctor.finding import Finding

A10 = GpuFacts(name="NVIDIA A10", capability="8.6", cuda="13.0", driver="580.65.06", sm_clock_mhz=1410)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which distributions are installed, by name and version."""

    def install(**versions: str) -> None:
        found = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(machine, "package_version", found.get)

    return install


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether there is a GPU."""

    def present(there: bool) -> None:
        monkeypatch.setattr(machine, "gpu_present", lambda: there)
        monkeypatch.setattr(machine, "gpu_facts", lambda: A10)

    return present


def about(findings: Any, words: str) -> Finding:
    (found,) = [finding for finding in findings if words in finding.what]
    return found


GPU_1 = {"onnxruntime_gpu": "1.31"}
CPU_1 = {"onnxruntime": "1.32"}
ON_CPU = {"InferenceSession": object, "get_available_providers": lambda: ["CPUExecutionProvider"]}
REINSTALL = "pip install --force-reinstall --no-deps onnxruntime"


@pytest.mark.parametrize(
    ("installed", "module", "there", "what", "fix"),
    [
        ({}, {}, False, "not installed", "pip uninstall -y onnxruntime onnxruntime-gpu, then install one"),
        (CPU_1 | GPU_1, {}, False, "1.32 and onnxruntime-gpu 1.31 are both installed", "pip uninstall -y onnxruntime"),
        (CPU_1, None, False, "onnxruntime 1.32 is installed, but its module is broken", REINSTALL),
        (GPU_1, {"get_available_providers": list}, False, "but its module is broken", f"{REINSTALL}-gpu"),
        (GPU_1, ON_CPU, False, "onnxruntime-gpu 1.31 (CPUExecutionProvider)", ""),
        (GPU_1, ON_CPU, True, "onnxruntime-gpu 1.31 offers only CPUExecutionProvider", f"{REINSTALL}-gpu, built for"),
    ],
)
def test_what_is_said_of_onnxruntime(
    packages: Any, gpu: Any, monkeypatch: Any, installed: Any, module: Any, there: bool, what: str, fix: str
) -> None:
    packages(**installed)
    gpu(there)
    # Importing what is None fails.
    monkeypatch.setitem(sys.modules, "onnxruntime", None if module is None else SimpleNamespace(**module))
    found = machine._onnxruntime()
    assert (found.state, bool(found.fix)) == (("broken", True) if fix else ("ok", False))
    assert what in found.what
    assert found.fix.startswith(fix)


def test_torch_that_does_not_import_or_sees_no_gpu_is_one_line(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    gpu(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert about(machine._torch(), "sees no CUDA").state == "broken"

    def fail(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist\nand much more")

    monkeypatch.setattr(machine.importlib, "import_module", fail)
    (found,) = machine._torch()
    assert found.state == "broken"
    assert found.what.endswith("do not import (operator torchvision::nms does not exist)")


def test_modelopt_is_an_extra(packages: Callable[..., None]) -> None:
    packages(nvidia_modelopt="0.47.0", cppimport="1", lief="1", onnxconverter_common="1")
    part = machine._modelopt()
    assert (part.state, part.fix) == ("absent", "pip install onnx-graphsurgeon")
    packages(nvidia_modelopt="0.47.0", cppimport="1", lief="1", onnxconverter_common="1", onnx_graphsurgeon="1")
    assert machine._modelopt() == Finding("ok", "ModelOpt: nvidia-modelopt 0.47.0, for bf16 and fp8")


@pytest.mark.parametrize(
    ("available", "loads", "found"),
    [
        (Availability(False, "not installed"), True, "absent engine (An Engine): not installed"),
        (Availability(True, "it is installed"), True, "ok engine (An Engine): it is installed"),
        (Availability(True, "it is installed"), False, "broken engine (An Engine): libnvinfer is missing"),
    ],
)
def test_each_target_tells_whether_it_can_be_built_here(
    monkeypatch: pytest.MonkeyPatch, gpu: Any, available: Availability, loads: bool, found: str
) -> None:
    class Engine(Target):
        name, title, page, distributions = "engine", "An Engine", "", ("an-engine",)

        def available(self) -> Availability:
            return available

        def load_library(self) -> None:
            if not loads:
                raise EnvironmentLacksError("libnvinfer is missing")

    gpu(True)
    monkeypatch.setattr(targets, "registered", lambda: {"engine": Engine()})
    every = list(machine.examine_machine())
    assert about(every, "NVIDIA GPU: ").what.endswith("capability 8.6, driver 580.65.06, CUDA 13.0")
    told = about(every, "engine (An Engine)")
    assert f"{told.state} {told.what}".startswith(found)
    assert told.fix == ("" if loads else "pip install --force-reinstall an-engine")


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    assert about(folder.examine_here(tmp_path), f"can be written in {tmp_path / 'runs'}").state == "ok"
    assert [entry.name for entry in tmp_path.rglob("*")] == ["runs"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 2**30))
    full = about(folder.examine_here(tmp_path), "disk: 2.0 GiB free here")
    assert (full.state, full.fix) == ("broken", "free at least 5 GiB, or give an --output elsewhere")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(errno.EROFS, "no way")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    found = about(folder.examine_here(tmp_path), f"nothing can be written in {tmp_path} (no way)")
    assert found.state == "broken"
    assert found.fix.endswith("give an --output elsewhere")
