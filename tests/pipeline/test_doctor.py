"""What `compress doctor` says of a machine, of its packages and targets, and of the folder it is called in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from command_line import in_process
from small_run import teacher_record

from vitcompress.core.context import Context
from vitcompress.core.errors import BundleError, EnvironmentLacksError
from vitcompress.core.measured_records import GatesRecord
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import ModelFile
from vitcompress.exporters.cuda import GpuFacts
from vitcompress.exporters.targets import Availability, Target
from vitcompress.exporters.targets.onnx_runtime import OnnxTarget
from vitcompress.exporters.targets.tensorrt import TensorrtTarget
from vitcompress.pipeline.doctor import Finding, folder, machine
from vitcompress.pipeline.doctor.folder import examine_folder

A10 = GpuFacts(name="NVIDIA A10", capability="8.6", cuda="13.0", driver="580.65.06")


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


@pytest.mark.parametrize("driver", ["580.65.06", None])
def test_nvml_that_is_not_here_is_named_beside_the_gpu(gpu: Any, monkeypatch: Any, driver: str | None) -> None:
    gpu(True)
    monkeypatch.setattr(machine, "gpu_facts", lambda: replace(A10, driver=driver))
    first, *more = machine._gpu()
    assert (first.state, "NVIDIA A10" in first.what) == ("ok", True)
    assert [(one.state, "NVML" in one.what, "utility" in one.fix) for one in more] == [("absent", True, True)] * (
        driver is None
    )


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


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.examine_here(tmp_path).what.startswith("disk: ")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 2**30))
    found = folder.examine_here(tmp_path)
    assert (found.state, found.what) == ("broken", "disk: 2.0 GiB free here")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as an intact bundle of a graph and an engine."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "manifest.json").write_text("{}")
    models = [
        ModelFile("onnx fp32", path / "model.onnx", "onnx", "fp32"),
        ModelFile("tensorrt fp32", path / "model.engine", "tensorrt", "fp32"),
    ]
    opened = SimpleNamespace(root=path, manifest={}, labels=("a", "b"), models=models)
    monkeypatch.setattr(folder, "open_bundle", lambda _: opened)
    return path


LACKS = EnvironmentLacksError("running an engine needs an NVIDIA GPU.")


@pytest.mark.parametrize(
    ("graph", "engine", "found"),
    [
        (None, LACKS, ["ok", "absent"]),
        (None, None, ["ok", "ok"]),
        (BundleError("model.onnx is damaged."), BundleError("it is for another GPU."), ["broken", "absent"]),
    ],
)
def test_each_model_of_a_bundle_is_loaded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, graph: Any, engine: Any, found: list[str]
) -> None:
    def opens(error: Exception | None) -> Any:
        def opened(*_: Any) -> Any:
            if error:
                raise error
            return nullcontext()

        return opened

    monkeypatch.setattr(OnnxTarget, "open", opens(graph))
    monkeypatch.setattr(TensorrtTarget, "open", opens(engine))
    intact, *models, judge = examine_folder(bundle)
    assert (judge.state, "cannot be measured on another machine" in judge.what) == ("absent", True)
    assert (intact.state, intact.what) == ("ok", f"bundle: {bundle}, 2 labels, every file as it was written")
    assert [one.state for one in models] == found
    for one, name, error in zip(models, ("model.onnx", "model.engine"), (graph, engine), strict=True):
        assert name in one.what
        assert str(error or "loads in") in one.what


def finish(context: Context) -> Path:
    """A run whose teacher and gates are done, and whose export failed."""
    run = context.run
    written = run.save_record("teacher", teacher_record(context))
    run.mark("teacher", "done", "f", record=written)
    run.mark("export", "failed", "f", error="the graph is odd")
    run.mark("gates", "done", "f", record=run.save_record("gates", GatesRecord(rows=(), passed=True)))
    run.mark("dance", "done", "f")
    return run.root


def test_a_run_tells_how_each_stage_stands(context: Context) -> None:
    found = {finding.what: finding.state for finding in examine_folder(finish(context))}
    assert found["stage teacher: done, its files are as they were written"] == "ok"
    assert found["stage gates: done, its files are as they were written"] == "ok"
    assert found["stage export: failed (the graph is odd)"] == "absent"
    assert found["stage dance: this version has no such stage, and leaves it alone"] == "absent"
    assert "broken" not in found.values()


def test_a_damaged_file_of_a_run_is_named_and_ends_the_command_with_3(
    context: Context,
) -> None:
    root = finish(context)
    weights = root / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    found = about(examine_folder(root), "stage teacher: teacher/model.safetensors is missing or not as it was written")
    assert (found.state, found.fix) == ("broken", "the same `compress run` command makes it again")
    (root / "records" / "gates.json").write_text("{")
    assert about(examine_folder(root), "stage gates: ").state == "broken"
    weights.unlink()
    told = in_process("doctor", root)
    assert told.code == 3
    assert "broken   stage teacher: teacher/model.safetensors is missing" in told.out


def test_what_is_neither_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    told = in_process("doctor", tmp_path)
    assert (told.code, told.out) == (2, "")
    assert "neither a run" in told.err
