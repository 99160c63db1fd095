"""ncnn: what pnnx converts answers as ONNX Runtime does; nothing that does not becomes a file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_targets import graph_in

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundled import GraphFacts, Tensor
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions, ncnn
from vitcompress.stages.rewrites.deploy import deployed


@pytest.fixture(scope="module")
def graph(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OnnxArtifact]:
    root = tmp_path_factory.mktemp("ncnn")
    return root, graph_in(root, onnx_file)


def build(root: Path, graph: OnnxArtifact, module: torch.nn.Module) -> Path:
    made = targets.get("ncnn").build(graph, BuildOptions(root, module=lambda: module))
    assert isinstance(made, EngineArtifact)
    assert [Path(one.path).suffix for one in made.files] == [".param", ".bin"]
    return root / made.files[0].path


@pytest.fixture(scope="module")
def built(graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, spec: PreprocessSpec) -> Path:
    return build(*graph, deployed(model, spec, "float").module)


def test_it_answers_as_onnx_runtime_does(built: Path, onnx_file: Path, images: NDArray[np.float32]) -> None:
    with targets.get("ncnn").open(built, threads=2) as runner, OnnxRunner(onnx_file) as reference:
        assert (runner.input, runner.size, runner.channels, runner.classes, runner.max_batch) == ("float", 32, 3, 10, 1)
        found = np.concatenate([runner.infer(one[None]) for one in images])
        np.testing.assert_allclose(found, reference.infer(images), rtol=0, atol=1e-4)


def test_fp16_halves_the_weights(
    built: Path, graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, images: NDArray[np.float32], tmp_path: Path
) -> None:
    shutil.copytree(graph[0], tmp_path, dirs_exist_ok=True)
    path = build(tmp_path, graph[1].model_copy(update={"precision": "fp16", "name": "half"}), model)
    assert path.with_suffix(".bin").stat().st_size < 0.6 * built.with_suffix(".bin").stat().st_size
    with targets.get("ncnn").open(path) as runner, torch.no_grad():
        expected = model(torch.from_numpy(images[:1])).numpy()
        assert 0 < np.abs(runner.infer(images[:1]) - expected).max() < 0.02 * np.abs(expected).max()


def test_pixels_are_normalised_by_the_network(
    graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = GraphFacts(Tensor("images", "uint8", (32, 32, 3)), Tensor("logits", "float32", (10,)), None, False)
    monkeypatch.setattr(ncnn, "graph_facts", lambda path: facts)
    network = deployed(model, spec, "uint8").module
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    path = build(graph[0], graph[1].model_copy(update={"name": "pixels"}), network)
    with targets.get("ncnn").open(path) as runner, torch.no_grad():
        assert (runner.input, runner.image_shape) == ("uint8", (32, 32, 3))
        np.testing.assert_allclose(runner.infer(pixels), network(torch.from_numpy(pixels)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.with_suffix(".bin").unlink(), r"student\.ncnn\.bin does not exist"),
        (lambda path: path.write_text("7767517\n"), "damaged"),
        (lambda path: path.write_text(path.read_text().replace("Softmax", "Softmix")), "damaged"),
        (lambda path: path.with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes()[:1000]), "damaged"),
    ],
)
def test_damaged_files_are_refused(built: Path, damage: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    for file in (built, built.with_suffix(".bin")):
        shutil.copy(file, tmp_path)
    damage(tmp_path / built.name)
    with pytest.raises(BundleError, match=words):
        targets.get("ncnn").open(tmp_path / built.name)


class Odd(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x).flatten(1)[:, :10]


def test_what_cannot_be_converted_leaves_no_file(
    built: Path, graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, before = graph[0] / "export", sorted((graph[0] / "export").iterdir())
    other = graph[1].model_copy(update={"name": "other"})
    with pytest.raises(ResultError, match=r"no ncnn layer for .*linalg"):
        build(graph[0], other, Odd())
    monkeypatch.setitem(ncnn.LIMITS, "fp32", 1e-12)
    with pytest.raises(ResultError, match="answers differently than torch"):
        build(graph[0], other, model)
    assert sorted(root.iterdir()) == before


def test_what_is_missing_is_named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    for call in (targets.get("ncnn").require, lambda: targets.get("ncnn").open(built)):
        with pytest.raises(EnvironmentLacksError, match=r"run pip install 'vitcompress\[ncnn\]'"):
            call()
