"""Core ML: what is converted computes what torch does, in the precision asked for; macOS itself is stood in for."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
import torch
from mil_in_torch import evaluate
from numpy.typing import NDArray
from PIL import Image
from test_targets import graph_in
from tiny_models import LABELS

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundled import GraphFacts, Tensor
from vitcompress.exporters.runners import Runner
from vitcompress.exporters.targets import BuildOptions, coreml
from vitcompress.stages.rewrites.patches import PixelInput


class OnMac:
    """``MLModel`` as the runner uses it, with Core ML's part done in torch."""

    def __init__(self, package: str) -> None:
        self.package = Path(package)
        self.spec = coremltools.utils.load_spec(package)

    def get_spec(self) -> Any:
        return self.spec

    def predict(self, given: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
        assert list(given) == [self.spec.description.input[0].name]
        (images,) = given.values()
        if isinstance(images, Image.Image):
            images = np.asarray(images)[None].transpose(0, 3, 1, 2)
        return {self.spec.description.output[0].name: evaluate(self.package, images)}


@pytest.fixture
def on_mac(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Runner]:
    """Opens a package as macOS does."""

    def opened(path: Path) -> Runner:
        with monkeypatch.context() as patch:  # coremltools itself needs the real MLModel to convert
            patch.setattr(platform, "system", lambda: "Darwin")
            patch.setattr(coremltools.models, "MLModel", OnMac)
            return targets.get("coreml").open(path)

    return opened


@pytest.fixture(scope="module")
def graph(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OnnxArtifact]:
    root = tmp_path_factory.mktemp("coreml")
    return root, graph_in(root, onnx_file)


def build(root: Path, graph: OnnxArtifact, module: torch.nn.Module, spec: PreprocessSpec) -> tuple[Path, Any]:
    made = targets.get("coreml").build(graph, BuildOptions(root, module=lambda: module, labels=LABELS, preprocess=spec))
    assert isinstance(made, EngineArtifact)
    assert made.file is not None
    return root / made.file.path, made


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("fp16", 0.2)])
def test_a_package_computes_what_torch_does(
    precision: Any, limit: float, graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, spec: PreprocessSpec,
    images: NDArray[np.float32], on_mac: Callable[[Path], Runner], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    root, of = graph
    path, made = build(root, of.model_copy(update={"precision": precision}), model, spec)
    assert {tuple(made.built_layers[kind]) for kind in ("conv", "linear", "matmul")} == {(precision,)}
    before = path.read_bytes()
    assert precision == "fp16" or build(root, of, model, spec)[0].read_bytes() == before
    assert capsys.readouterr() == ("", "")
    with on_mac(path) as runner, torch.no_grad():
        assert (runner.input, runner.size, runner.channels, runner.classes, runner.max_batch) == ("float", 32, 3, 10, 1)
        found = np.concatenate([runner.infer(one[None]) for one in images])
        about = runner._model.get_spec().description.metadata  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, model(torch.from_numpy(images)), rtol=0, atol=limit)
    assert PreprocessSpec.model_validate_json(about.userDefined["preprocess"]) == spec
    assert all(label in about.userDefined["labels"] for label in LABELS)
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(BundleError, match="damaged"):
        on_mac(path)


def test_pixels_are_an_image_which_the_network_normalises(
    graph: tuple[Path, OnnxArtifact], model: torch.nn.Module, spec: PreprocessSpec, on_mac: Callable[[Path], Runner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    facts = GraphFacts(Tensor("images", "uint8", (32, 32, 3)), Tensor("logits", "float32", (10,)), None, False)
    monkeypatch.setattr(coreml, "graph_facts", lambda path: facts)
    network = PixelInput(model, spec).float().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    with on_mac(build(*graph, network, spec)[0]) as runner, torch.no_grad():
        assert (runner.input, runner.image_shape) == ("uint8", (32, 32, 3))
        expected = network(torch.from_numpy(pixels))
        np.testing.assert_allclose(runner.infer(pixels), expected, rtol=0, atol=1e-4)


def test_an_operator_that_coremltools_lacks_is_named(
    graph: tuple[Path, OnnxArtifact], spec: PreprocessSpec, tmp_path: Path
) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x).flatten(1)[:, :10]

    before = sorted(path.name for path in (graph[0] / "export").iterdir())
    with pytest.raises(ResultError, match="linalg_inv"):
        build(*graph, Odd(), spec)
    assert sorted(path.name for path in (graph[0] / "export").iterdir()) == before


def test_elsewhere_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    with pytest.raises(EnvironmentLacksError, match="macOS alone; this is Linux"):
        targets.get("coreml").open(tmp_path / "model.mlpackage.zip")
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(EnvironmentLacksError, match=r"run pip install 'vitcompress\[coreml\]'"):
        targets.get("coreml").require()
