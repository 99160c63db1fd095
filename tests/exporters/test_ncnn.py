"""ncnn: what pnnx converts answers as ONNX Runtime does; nothing that does not becomes a file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
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
        return x[:, :, ::2].flatten(1)[:, :10]


def test_what_cannot_be_converted_leaves_no_file(
    built: Path, graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, before = graph[0] / "export", sorted((graph[0] / "export").iterdir())
    other = graph[1].model_copy(update={"name": "other"})
    with pytest.raises(ResultError, match=r"no ncnn layer for Tensor\.slice"):
        build(graph[0], other, Odd())
    monkeypatch.setitem(ncnn.LIMITS, "fp32", 1e-12)
    with pytest.raises(ResultError, match="answers differently than torch"):
        build(graph[0], other, model)
    assert sorted(root.iterdir()) == before


NETWORKS: dict[str, tuple[dict[str, Any], int, str]] = {
    "deit_tiny_patch16_224": ({"img_size": 32, "patch_size": 8, "depth": 2}, 32, ""),
    "cait_xxs24_224": ({"img_size": 32, "patch_size": 8, "depth": 2}, 32, ""),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 42, "depth": 2}, 42, ""),
    "mobilenetv4_conv_small": ({}, 64, ""),
    "convnext_atto": ({}, 64, ""),
    "repvit_m0_9": ({}, 64, ""),
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "window_size": 4, "depths": (2, 2)}, 64, "Tensor.reshape"),
    "levit_128s": ({}, 224, "Tensor.slice"),
}
"""Arguments, size and, where ncnn has no layer for it, the operator that is refused."""


@pytest.mark.sweep
@pytest.mark.parametrize("rewrite", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, rewrite: bool, graph: tuple[Path, OnnxArtifact], monkeypatch: pytest.MonkeyPatch) -> None:
    args, size, refused = NETWORKS[name]
    facts = GraphFacts(Tensor("images", "float32", (3, size, size)), Tensor("logits", "float32", (10,)), None, False)
    monkeypatch.setattr(ncnn, "graph_facts", lambda path: facts)
    torch.manual_seed(0)
    spec = PreprocessSpec(size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    network = deployed(timm.create_model(name, num_classes=10, **args).eval(), spec, "float", rewrite=rewrite).module
    if refused:
        with pytest.raises(ResultError, match=refused):
            build(*graph, network)
        return
    images = torch.randn(1, 3, size, size)
    with targets.get("ncnn").open(build(*graph, network)) as runner, torch.no_grad():
        expected = network(images).numpy()
        assert np.abs(runner.infer(images.numpy()) - expected).max() < 1e-4 * np.abs(expected).max()


def test_what_is_missing_is_named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    for call in (targets.get("ncnn").require, lambda: targets.get("ncnn").open(built)):
        with pytest.raises(EnvironmentLacksError, match=r"run pip install 'vitcompress\[ncnn\]'"):
            call()
