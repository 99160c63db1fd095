"""Targets that are built of torch's programs: ExecuTorch and AOTInductor."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_bundles import fp32, make
from numpy.typing import NDArray
from test_targets import graph_in

import vitcompress.exporters.runners.aoti as aoti
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundled import BundledModel
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions
from vitcompress.stages.rewrites.deploy import deployed

both = pytest.mark.parametrize("name", ["executorch", "aotinductor"])
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
Built = Callable[..., Path]


@pytest.fixture(scope="module")
def built(model: torch.nn.Module, spec: PreprocessSpec, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What a target built of the tiny network, once; beside it is the graph, ``student.onnx``."""

    @cache
    def build(name: str, input: str = "float", precision: str = "fp32") -> Path:
        root = tmp_path_factory.mktemp(f"{name}-{input}-{precision}")
        module = deployed(model, spec, input).module  # type: ignore[arg-type]
        onnx_from_module(module, root / "a.onnx", size=32, max_batch=8, input=input)  # type: ignore[arg-type]
        graph = graph_in(root, root / "a.onnx").model_copy(update={"precision": precision})
        made = targets.get(name).build(graph, BuildOptions(root, max_batch=8, module=lambda: module))
        assert (made.target, made.precision) == (name, precision)
        assert list((root / "export").glob(".*")) == []  # no drafts, no caches
        return root / made.files[0].path

    return build


@both
@pytest.mark.parametrize("input", ["float", "uint8"])
def test_the_answers_are_those_of_torch_and_onnx_runtime(
    name: str, input: str, built: Built, model: torch.nn.Module, images: NDArray[np.float32], spec: PreprocessSpec,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = logging.getLogger().handlers[:]
    path = built(name, input)
    given = images[:7] if input == "float" else PIXELS
    with torch.inference_mode():
        expected = deployed(model, spec, input).module(torch.from_numpy(given)).numpy()  # type: ignore[arg-type]
    with targets.get(name).open(path) as runner, OnnxRunner(path.with_name("student.onnx")) as reference:
        assert (runner.input, runner.size, runner.channels, runner.classes, runner.max_batch) == (input, 32, 3, 10, 8)
        for size in (1, 2, 7, 1):
            found = runner.infer(given[:size])
            np.testing.assert_allclose(found, expected[:size], atol=1e-4)
            np.testing.assert_allclose(found, reference.infer(given[:size]), atol=1e-4)
    assert logging.getLogger().handlers == before
    assert capfd.readouterr() == ("", "")


def test_int8_makes_it_smaller_and_little_else(
    built: Built, model: torch.nn.Module, images: NDArray[np.float32]
) -> None:
    wide, small = built("executorch"), built("executorch", "float", "int8")
    assert small.stat().st_size < 0.6 * wide.stat().st_size
    with torch.inference_mode():
        expected = model(torch.from_numpy(images[:8])).numpy()
    with targets.get("executorch").open(small) as runner:
        assert np.abs(runner.infer(images[:8]) - expected).max() < 0.1 * np.ptp(expected)


@both
def test_what_is_missing_or_damaged_is_one_sentence(
    name: str, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, good = targets.get(name), built(name)
    path, content = tmp_path / good.name, good.read_bytes()
    with pytest.raises(BundleError, match="does not exist"):
        target.open(path)
    for damaged in (b"", content[: len(content) // 2], b"\0" * 64 + content[64:]):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"is damaged[^\n]*$"):
            target.open(path)
    with pytest.raises(ResultError, match="only its ONNX graph is known"):
        target.build(graph_in(tmp_path, good.with_name("student.onnx")), BuildOptions(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "run pip install" in target.available().why
    with pytest.raises(EnvironmentLacksError, match="not installed; run pip install"):
        target.open(good)


def test_code_for_another_processor_is_not_loaded(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built("aotinductor")
    facts = aoti.read_facts(path)
    for change, words in (({"needs": ["avx9000"]}, "avx9000, which this one lacks"), ({"machine": "z80"}, "on z80")):
        monkeypatch.setattr(aoti, "read_facts", lambda _, change=change: facts | change)
        with pytest.raises(EnvironmentLacksError, match=words):
            targets.get("aotinductor").open(path)


def test_threads_are_what_was_asked_for(built: Built, images: NDArray[np.float32]) -> None:
    from executorch.extension.pybindings import portable_lib as pool

    before, target, path = torch.get_num_threads(), targets.get("executorch"), built("executorch")
    for threads in (1, 2):
        with target.open(path, threads) as runner:
            assert pool._threadpool_get_thread_count() == threads
            with pytest.raises(UsageError, match=rf"uses {threads}; close it before one is opened with 5"):
                target.open(path, 5)
            with targets.get("aotinductor").open(built("aotinductor"), threads) as other:
                np.testing.assert_allclose(runner.infer(images[:2]), other.infer(images[:2]), atol=1e-4)
    assert torch.get_num_threads() == before


@both
def test_the_card_of_a_bundle_runs_it_in_its_language(
    name: str, built: Built, spec: PreprocessSpec, tmp_path: Path
) -> None:
    file = built(name)
    models = [fp32(file.with_name("student.onnx")), BundledModel("x", file, name, "fp32", suffix=file.suffix)]
    default = {"onnx": "student", "engine": "x"}
    make(tmp_path / "b", models[0].source, spec, models=models, default=default, add=["executorch", "aotinductor"])
    card = (tmp_path / "b" / "README.md").read_text()
    assert f'("model.{name}{file.suffix}")' in card
    assert ("{1, 3, 32, 32}" in card, card.count("```cpp")) == (True, 1)
