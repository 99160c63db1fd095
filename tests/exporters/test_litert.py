"""LiteRT; its converter and its interpreter are replaced by small ones, except in the slow test, which installs it."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_targets import graph_in

from vitcompress.core.artifact_records import OnnxArtifact
from vitcompress.core.errors import BundleError, ResultError
from vitcompress.exporters import environments, targets
from vitcompress.exporters.bundled import BundledModel, Part, graph_facts
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions

TARGET = targets.get("litert")


class Interpreter:
    """Class k's logit of an image is its sum and k; a batch is refused."""

    def __init__(self, path: str, num_threads: int) -> None:
        self.allocate_tensors = self.invoke = lambda: None
        self.get_input_details = lambda: [{"index": 0, "shape": np.array([1, 3, 32, 32]), "dtype": np.float32}]
        self.get_output_details = lambda: [{"index": 1, "shape": np.array([1, 10])}]
        self.get_tensor = lambda index: self.image.sum() + np.arange(10)[None]
        if Path(path).read_bytes() != b"a classifier":
            raise ValueError("its identifier should be 'TFL3'")

    def set_tensor(self, index: int, value: NDArray[Any]) -> None:
        if value.shape != (1, 3, 32, 32) or np.isnan(value).any():
            raise ValueError("Dimension mismatch")
        self.image = value


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("ai_edge_litert")
    package.__spec__ = ModuleSpec("ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=Interpreter))


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Python of an environment that looks installed; it is given ``-I -c PROGRAM FILE LOGITS PRECISION OUTPUT``."""
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "targets"))
    python = environments.python_of(environments.environment("litert"))
    python.parent.mkdir(parents=True)
    python.touch(0o755)
    content = {"requirements": list(TARGET.requirements), "packages": {"litert-torch": "0.10.0"}}
    (python.parents[1] / environments.RECORD).write_text(json.dumps(content))
    return python


@pytest.fixture
def graph(tmp_path: Path, onnx_file: Path) -> OnnxArtifact:
    return graph_in(tmp_path, onnx_file)


def test_the_torch_program_is_converted_in_the_environments_python(
    tmp_path: Path, library: None, converter: Path, graph: OnnxArtifact, model: torch.nn.Module
) -> None:
    converter.write_text(f'#!/bin/sh\ncp "$4" {tmp_path}/program.pt2; echo "$1 $5 $6" > "$7"\n')
    made = TARGET.build(graph, BuildOptions(tmp_path, module=lambda: model))
    assert (made.target, made.precision, vars(made)["version"]) == ("litert", "fp32", "0.10.0")
    assert [one.path for one in made.files] == ["export/student.litert.tflite"]
    assert (tmp_path / made.files[0].path).read_text() == "-I logits fp32\n"
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(torch.export.load(tmp_path / "program.pt2").module()(image), model(image))


@pytest.mark.parametrize(
    ("script", "words"),
    [("echo half > $7; echo 'Error: no erfinv.' >&2; exit 1", "no erfinv"), ("kill -9 $$", "ended with status -9")],
)
def test_a_converter_that_fails_or_dies_is_one_sentence(
    tmp_path: Path, library: None, converter: Path, graph: OnnxArtifact, model: torch.nn.Module, script: str, words: str
) -> None:
    converter.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(ResultError, match=f"^LiteRT's converter failed .*{words}.$"):
        TARGET.build(graph, BuildOptions(tmp_path, module=lambda: model))
    assert [one.name for one in (tmp_path / "export").iterdir()] == ["student.onnx"]


def test_commands_and_lines_to_run_it_are_told(tmp_path: Path, onnx_file: Path, monkeypatch: Any) -> None:
    part = Part(BundledModel("onnx fp32", onnx_file, "onnx", "fp32"), graph_facts(onnx_file))
    assert TARGET.add_files(tmp_path, [part], ()) == ""
    (tmp_path / "model.litert.tflite").touch()
    said = TARGET.add_files(tmp_path, [part], ())
    assert all(f"```{language}" in said for language in ("python", "kotlin", "swift"))
    assert f"allocateDirect({3 * 32 * 32 * 4})" in said
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = TARGET.available()
    assert not found.yes
    assert "run pip install 'vitcompress[litert]'" in found.why
    assert "run compress target install litert" in found.why


def test_images_of_a_batch_are_run_one_by_one(tmp_path: Path, library: None, images: NDArray[np.float32]) -> None:
    path = tmp_path / "model.litert.tflite"
    path.write_bytes(b"a classifier")
    with TARGET.open(path, threads=1) as runner:
        assert (runner.input, runner.size, runner.channels, runner.classes) == ("float", 32, 3, 10)
        expected = images.sum(axis=(1, 2, 3))[:, None] + np.arange(10)
        np.testing.assert_allclose(runner.infer(images), expected, rtol=1e-4)
        with pytest.raises(ResultError, match=r"LiteRT failed on model\.litert\.tflite \(Dimension mismatch"):
            runner.infer(np.full_like(images[:1], np.nan))
    path.write_bytes(b"oops")
    with pytest.raises(BundleError, match=r"damaged or no LiteRT classifier .*should be 'TFL3'"):
        TARGET.open(path)


@pytest.mark.slow
def test_the_real_file_gives_the_logits_of_onnx_runtime(
    tmp_path: Path, monkeypatch: Any, graph: OnnxArtifact, model: torch.nn.Module, images: NDArray[np.float32]
) -> None:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "targets"))
    assert environments.install(TARGET, print)
    assert "torch" not in environments.packages_of(TARGET)
    options = BuildOptions(tmp_path, module=lambda: model)
    narrow = graph.model_copy(update={"name": "student-int8", "precision": "int8"})
    wide, made = TARGET.build(graph, options), TARGET.build(narrow, options)
    assert made.bytes < 0.7 * wide.bytes
    with OnnxRunner(tmp_path / graph.file.path) as onnx, TARGET.open(tmp_path / wide.files[0].path) as runner:
        logits = onnx.infer(images)
        np.testing.assert_allclose(runner.infer(images), logits, atol=1e-4)
    with TARGET.open(tmp_path / made.files[0].path) as runner:
        assert np.abs(runner.infer(images) - logits).max() < 0.5 * logits.std()
