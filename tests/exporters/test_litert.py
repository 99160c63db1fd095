"""LiteRT: the conversion in a Python that is replaced by a script, the runner on an interpreter that is replaced too.

The real ones, which are downloaded, are in the slow test.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vitcompress.core.artifact_records import OnnxArtifact
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.files import reference
from vitcompress.core.records import Cost
from vitcompress.exporters import environments, targets
from vitcompress.exporters.bundled import BundledModel, Part, graph_facts
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions

TARGET = targets.get("litert")


class Interpreter:
    """Class k's logit of an image is its sum and k."""

    def __init__(self, path: str, num_threads: int) -> None:
        self.values: dict[int, NDArray[Any]] = {}
        if Path(path).read_bytes() != b"a classifier":
            raise ValueError("Model provided has model identifier 'oops', should be 'TFL3'")

    def allocate_tensors(self) -> None:
        self.values[1] = np.zeros((1, 10), dtype=np.float32)

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": np.array([1, 3, 32, 32], dtype=np.int32), "dtype": np.float32}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 1, "shape": np.array([1, 10], dtype=np.int32), "dtype": np.float32}]

    def set_tensor(self, index: int, value: NDArray[Any]) -> None:
        if value.shape != (1, 3, 32, 32):
            raise ValueError("Cannot set tensor: Dimension mismatch.")
        self.values[index] = value

    def invoke(self) -> None:
        if np.isnan(self.values[0]).any():
            raise RuntimeError("node number 3 failed to invoke")
        self.values[1] = self.values[0].sum(keepdims=True).reshape(1, 1) + np.arange(10, dtype=np.float32)

    def get_tensor(self, index: int) -> NDArray[Any]:
        return self.values[index]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("ai_edge_litert"), ModuleType("ai_edge_litert.interpreter")
    package.__spec__ = ModuleSpec("ai_edge_litert", None)
    package.interpreter, module.Interpreter = module, Interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that looks installed; the file returned is its Python, given ``-I -c PROGRAM FILE LOGITS OUT``."""
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "targets"))
    folder = environments.environment("litert")
    python = environments.python_of(folder)
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    content = {"requirements": list(TARGET.requirements), "packages": {"litert-torch": "0.10.0"}}
    (folder / environments.RECORD).write_text(json.dumps(content))
    return python


@pytest.fixture
def graph(tmp_path: Path, onnx_file: Path) -> OnnxArtifact:
    path = tmp_path / "export" / "student.onnx"
    path.parent.mkdir()
    path.write_bytes(onnx_file.read_bytes())
    checks = {"max_logit_difference": {}, "tolerance": 1e-3, "seconds": 1.0}
    cost = Cost(parameters=1, macs=1)
    return OnnxArtifact(name="student", file=reference(path, tmp_path), cost=cost, nodes=1, opset=20, **checks)


def test_the_program_of_torch_is_converted_in_the_environments_python(
    tmp_path: Path, library: None, converter: Path, graph: OnnxArtifact, model: torch.nn.Module
) -> None:
    converter.write_text(
        f'#!/bin/sh\ncp "$4" {tmp_path}/program.pt2; echo "$1 $5" > {tmp_path}/words; printf x > "$6"\n'
    )
    made = TARGET.build(graph, BuildOptions(tmp_path, max_batch=16, module=lambda: model))
    assert (made.target, made.precision, made.version, made.max_batch) == ("litert", "fp32", "0.10.0", 16)  # type: ignore[attr-defined]
    assert [one.path for one in made.files] == ["export/student.litert.tflite"]
    assert (tmp_path / "words").read_text() == "-I logits\n"
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        again = torch.export.load(tmp_path / "program.pt2").module()(image)
        torch.testing.assert_close(again, model(image))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo a warning >&2; echo half > $6; echo 'RuntimeError: no lowering of erfinv.' >&2; exit 1",
            "no lowering of",
        ),
        ("kill -9 $$", "ended with status -9"),
        ("exit 0", "ended with status 0"),
    ],
)
def test_a_converter_that_fails_or_dies_is_one_sentence(
    tmp_path: Path, library: None, converter: Path, graph: OnnxArtifact, model: torch.nn.Module, script: str, words: str
) -> None:
    converter.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(ResultError, match=words) as caught:
        TARGET.build(graph, BuildOptions(tmp_path, module=lambda: model))
    assert "\n" not in str(caught.value)
    assert [one.name for one in (tmp_path / "export").iterdir()] == ["student.onnx"]


def test_both_commands_are_named_where_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = TARGET.available()
    assert not found.yes
    assert found.why == (
        "LiteRT is not installed; run pip install 'vitcompress[litert]' and "
        "LiteRT's converter is not installed; run compress target install litert"
    )
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(EnvironmentLacksError, match=r"run pip install 'vitcompress\[litert\]'"):
        TARGET.open(tmp_path / "model.litert.tflite")


def test_images_of_a_batch_are_run_one_by_one(tmp_path: Path, library: None, images: NDArray[np.float32]) -> None:
    path = tmp_path / "model.litert.tflite"
    path.write_bytes(b"a classifier")
    with TARGET.open(path, threads=1) as runner:
        assert (runner.input, runner.size, runner.channels, runner.classes) == ("float", 32, 3, 10)
        expected = images.sum(axis=(1, 2, 3))[:, None] + np.arange(10)
        np.testing.assert_allclose(runner.infer(images), expected, rtol=1e-5)
        with pytest.raises(ResultError, match=r"LiteRT failed on model\.litert\.tflite \(node number 3 failed"):
            runner.infer(np.full_like(images[:1], np.nan))
    path.write_bytes(b"oops")
    with pytest.raises(BundleError, match=r"damaged or no LiteRT classifier .*should be 'TFL3'"):
        TARGET.open(path)
    path.unlink()
    with pytest.raises(BundleError, match="does not exist"):
        TARGET.open(path)


def test_the_card_has_lines_to_run_the_file_in_three_languages(tmp_path: Path, onnx_file: Path) -> None:
    part = Part(BundledModel("onnx fp32", onnx_file, "onnx", "fp32"), graph_facts(onnx_file))
    assert TARGET.add_files(tmp_path, [part], ()) == ""
    (tmp_path / "model.litert.tflite").touch()
    said = TARGET.add_files(tmp_path, [part], ())
    assert all(f"```{language}" in said for language in ("python", "kotlin", "swift"))
    assert f"allocateDirect({3 * 32 * 32 * 4})" in said
    assert '["logits"]' in said


@pytest.mark.slow
def test_the_real_converter_is_installed_and_its_file_gives_the_logits_of_onnx_runtime(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    graph: OnnxArtifact,
    model: torch.nn.Module,
    images: NDArray[np.float32],
) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT, of the extra litert, is not installed")
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "targets"))
    assert environments.install(TARGET, print)
    assert environments.packages_of(TARGET)["litert-torch"].startswith("0.10.")
    assert "torch" not in environments.packages_of(TARGET)
    made = TARGET.build(graph, BuildOptions(tmp_path, module=lambda: model))
    with (
        TARGET.open(tmp_path / made.files[0].path, threads=1) as runner,
        OnnxRunner(tmp_path / graph.file.path) as onnx,
    ):
        np.testing.assert_allclose(runner.infer(images), onnx.infer(images), atol=1e-4)
