"""A tiny ViT that really tells digits apart a little, real handwritten digits, and what was exported of it once."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fake_driver import FakeDriver
from fake_tensorrt import FakeTensorrt
from made_bundles import make
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from tiny_models import SIZE, tiny_vit

import vitcompress.exporters.cuda
import vitcompress.exporters.latency.card
import vitcompress.exporters.runners.engine
import vitcompress.exporters.runners.gpu_times
from vitcompress.core.images import open_image
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.onnx import onnx_from_module


@pytest.fixture(scope="session")
def model() -> torch.nn.Module:
    return tiny_vit().eval()


@pytest.fixture(scope="session")
def spec() -> PreprocessSpec:
    return PreprocessSpec(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("digits")
    files = []
    for index, pixels in enumerate(load_digits().images[:12]):
        files.append(folder / f"{index:02d}.png")
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(files[-1])
    return files


@pytest.fixture(scope="session")
def images(digit_files: list[Path], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Float32 ``[12, 3, 32, 32]``."""
    return np.stack([spec.apply(open_image(file)) for file in digit_files])


@pytest.fixture(scope="session")
def onnx_file(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    onnx_from_module(model, path, size=SIZE, max_batch=8)
    return path


@pytest.fixture(scope="session")
def external_file(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with its weights in a file beside the graph. Not to be changed; copy its folder for that."""
    path = tmp_path_factory.mktemp("external") / "big.onnx"
    onnx.save(onnx.load(onnx_file), path, save_as_external_data=True, location="big.onnx.data", size_threshold=1000)
    assert path.with_name("big.onnx.data").stat().st_size > path.stat().st_size
    return path


@pytest.fixture(scope="session")
def made_bundle(onnx_file: Path, spec: PreprocessSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without an engine. Not to be changed; `bundle_folder` is a copy of it."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    make(folder, onnx_file, spec)
    return folder


@pytest.fixture
def bundle_folder(made_bundle: Path, tmp_path: Path) -> Iterator[Path]:
    """A bundle without an engine; the folder above it must be left without drafts."""
    parent = tmp_path / "deploy"
    shutil.copytree(made_bundle, parent / "bundle")
    yield parent / "bundle"
    assert [entry.name for entry in parent.iterdir()] in ([], ["bundle"])


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    fake = FakeDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: fake)
    vitcompress.exporters.cuda._driver.cache_clear()
    yield fake
    vitcompress.exporters.cuda._driver.cache_clear()


@pytest.fixture
def engine_driver(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """The fake driver with a fake TensorRT on it; everything must be given back."""
    monkeypatch.setattr(vitcompress.exporters.runners.engine, "load_tensorrt", lambda _: FakeTensorrt)
    driver.limit = 10_000_000
    monkeypatch.setattr(vitcompress.exporters.latency.card, "REST_SECONDS", 0.0)
    monkeypatch.setattr(vitcompress.exporters.runners.gpu_times, "STUCK_SECONDS", 0.1)
    yield driver
    assert (driver.memory, driver.host, driver.events, driver.graphs, driver.capturing) == ({}, {}, {}, {}, None)
