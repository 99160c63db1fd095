"""Targets that are built of torch's programs: ExecuTorch and AOTInductor."""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_bundles import fp32, make
from numpy.typing import NDArray
from test_targets import graph_in

import vitcompress.exporters.runners.aoti as aoti
from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.core.preprocess import Input, PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundled import BundledModel
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions
from vitcompress.stages.rewrites.deploy import deployed

NAMES = ("executorch", "aotinductor")
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


class Built:
    """The tiny network's graphs, and what targets build of them, each once."""

    def __init__(self, folder: Path, model: torch.nn.Module, spec: PreprocessSpec) -> None:
        self.folder, self.model, self.spec = folder, model, spec
        self.graph, self.file = cache(self._graph), cache(self._file)

    def module(self, input: Input) -> torch.nn.Module:
        return deployed(self.model, self.spec, input).module

    def _graph(self, input: Input = "float") -> Path:
        path = self.folder / f"{input}.onnx"
        onnx_from_module(self.module(input), path, size=32, max_batch=8, input=input)
        return path

    def _file(self, name: str, input: Input = "float", precision: Precision = "fp32") -> Path:
        root = self.folder / f"{name}-{input}-{precision}"
        root.mkdir()
        graph = graph_in(root, self.graph(input)).model_copy(update={"precision": precision})
        made = targets.get(name).build(graph, BuildOptions(root, max_batch=8, module=lambda: self.module(input)))
        assert (made.target, made.precision, made.files[0].bytes) == (name, precision, made.bytes)
        assert len(list((root / "export").glob(".*"))) == 0  # no drafts, no caches
        return root / made.files[0].path


@pytest.fixture(scope="module")
def built(model: torch.nn.Module, spec: PreprocessSpec, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("built"), model, spec)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("input", ["float", "uint8"])
def test_the_answers_are_those_of_torch_and_onnx_runtime(
    name: str, input: Input, built: Built, images: NDArray[np.float32], capfd: pytest.CaptureFixture[str]
) -> None:
    handlers, cached = logging.getLogger().handlers[:], os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    given = images[:7] if input == "float" else PIXELS
    with torch.inference_mode():
        expected = built.module(input)(torch.from_numpy(given)).numpy()
    with targets.get(name).open(built.file(name, input)) as runner, OnnxRunner(built.graph(input)) as reference:
        assert (runner.input, runner.size, runner.channels, runner.classes, runner.max_batch) == (input, 32, 3, 10, 8)
        for size in (1, 2, 7, 1):
            found = runner.infer(given[:size])
            np.testing.assert_allclose(found, expected[:size], atol=1e-4)
            np.testing.assert_allclose(found, reference.infer(given[:size]), atol=1e-4)
    assert (logging.getLogger().handlers, os.environ.get("TORCHINDUCTOR_CACHE_DIR")) == (handlers, cached)
    assert capfd.readouterr() == ("", "")


def test_int8_makes_it_smaller_and_little_else(built: Built, images: NDArray[np.float32]) -> None:
    wide, small = built.file("executorch"), built.file("executorch", "float", "int8")
    assert small.stat().st_size < 0.6 * wide.stat().st_size
    with torch.inference_mode():
        expected = built.model(torch.from_numpy(images)).numpy()
    with targets.get("executorch").open(small) as runner:
        found = np.concatenate([runner.infer(images[:8]), runner.infer(images[8:])])
    assert np.abs(found - expected).max() < 0.1 * np.ptp(expected)
    assert "XNNPACK runs" in small.with_suffix(".log").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_one_sentence(name: str, built: Built, tmp_path: Path) -> None:
    good = built.file(name).read_bytes()
    path = tmp_path / built.file(name).name
    for content in (b"", good[: len(good) // 2], b"\0" * 64 + good[64:]):
        path.write_bytes(content)
        with pytest.raises(BundleError, match="is damaged or no") as caught:
            targets.get(name).open(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_said(name: str, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, path = targets.get(name), built.file(name)
    with pytest.raises(ResultError, match="only its ONNX graph is known"):
        target.build(graph_in(tmp_path, built.graph()), BuildOptions(tmp_path))
    with pytest.raises(BundleError, match="does not exist"):
        target.open(tmp_path / path.name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "run pip install" in target.available().why
    with pytest.raises(EnvironmentLacksError, match="not installed; run pip install"):
        target.open(path)


@pytest.mark.parametrize("lack", ["instructions", "machine"])
def test_code_for_another_processor_is_not_loaded(lack: str, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built.file("aotinductor")
    if lack == "machine":
        monkeypatch.setattr(aoti.platform, "machine", lambda: "riscv64")
    else:
        facts = aoti.read_facts(path) | {"needs": ["avx9000"]}
        monkeypatch.setattr(aoti, "read_facts", lambda _: facts)
    with pytest.raises(EnvironmentLacksError, match=r"avx9000, which this one lacks|this is \w+ on riscv64"):
        targets.get("aotinductor").open(path)


def test_threads_are_what_was_asked_for(built: Built, images: NDArray[np.float32]) -> None:
    from executorch.extension.pybindings import portable_lib as pool

    before, target, path = torch.get_num_threads(), targets.get("executorch"), built.file("executorch")
    for threads in (1, 2):
        with target.open(path, threads) as one, target.open(path, threads) as other:
            assert pool._threadpool_get_thread_count() == threads
            np.testing.assert_allclose(one.infer(images[:2]), other.infer(images[:2]))
            with pytest.raises(UsageError, match=rf"uses {threads}; close it before one is opened with 5"):
                target.open(path, 5)
        with targets.get("aotinductor").open(built.file("aotinductor"), threads) as runner:
            runner.infer(images[:2])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", NAMES)
def test_the_card_of_a_bundle_runs_it_in_its_language(
    name: str, built: Built, spec: PreprocessSpec, tmp_path: Path
) -> None:
    file = built.file(name)
    models = [fp32(built.graph()), BundledModel("x", file, name, "fp32", {"max_batch": 8}, suffix=file.suffix)]
    make(tmp_path / "b", built.graph(), spec, models=models, default={"onnx": "student", "engine": "x"}, add=NAMES)
    card = (tmp_path / "b" / "README.md").read_text()
    assert f'("model.{name}{file.suffix}")' in card
    assert "{1, 3, 32, 32}" in card
    assert card.count("```cpp") == 1
