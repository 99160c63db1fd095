from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from filelock import FileLock
from PIL import Image
from running import NAMES, SHORT, WHOLE, Finished, as_process, crowded, sets
from sklearn.datasets import load_digits

from vitcompress.exporters import onnx as exporting


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny run on the embedded digits, never changed by a test."""
    return _once(tmp_path_factory, "ein Lauf – première", _finish)


@pytest.fixture(scope="session")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same in one epoch, with a control; started in a crowded folder, and never changed by a test."""
    return _once(tmp_path_factory, "controlled", _control)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Finished]) -> Finished:
    """A run that is carried out once for all of pytest-xdist's processes.

    Each has its own copy, for a run is one process's.
    """
    own = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make(own / "once" / name)
    shared = own.parent / f"{name}.pickle"
    with FileLock(shared.with_suffix(".lock")):
        if not shared.is_file():
            shared.write_bytes(pickle.dumps(make(own.parent / "once" / name)))
    made = pickle.loads(shared.read_bytes())  # noqa: S301 - written above
    root = Path(shutil.copytree(made.root, own / "once" / made.root.name))
    out, err = (text.replace(str(made.root), str(root)) for text in (made.result.out, made.result.err))
    return Finished(root, made.arguments, replace(made.result, out=out, err=err))


def _finish(root: Path) -> Finished:
    arguments = ("run", *NAMES, *sets(*WHOLE))
    result = as_process(*arguments, "--output", root)
    assert result.code == 0, result.err
    return Finished(root, arguments, result)


def _control(root: Path) -> Finished:
    arguments = ("run", *NAMES, *sets(*SHORT, "gates.min_teacher_gain=60"), "--control", "labels")
    cwd = crowded(root.parent / "of a user")
    result = as_process(*arguments, "--output", root, python=("-P",), cwd=cwd)
    assert result.code == 1, result.err  # the gate fails
    return Finished(root, arguments, result)


@pytest.fixture(scope="session")
def takes_graphs_from_before() -> Callable[[pytest.MonkeyPatch], None]:
    """A graph that is there already is taken for the export of the same network, which takes 8 seconds each."""
    return _take_graphs


@pytest.fixture
def exported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one test."""
    _take_graphs(monkeypatch)


def _take_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting.onnx_from_module

    def instead(module: Any, path: Path, **options: Any) -> Any:
        if not path.is_file():
            return real(module, path, **options)
        graph = onnx.load(path)
        opset = max(one.version for one in graph.opset_import)
        return exporting.OnnxFacts(
            nodes=len(graph.graph.node), opset=opset, seconds=0.0, bytes=path.stat().st_size, data=None
        )

    monkeypatch.setattr("vitcompress.stages.export.graphs.onnx_from_module", instead)


@pytest.fixture
def run_copy(finished: Finished, tmp_path: Path) -> Path:
    """The finished run, moved to another place, to be changed at will."""
    return Path(shutil.copytree(finished.root, tmp_path / "moved"))


def save_digits(folder: Path, classes: dict[str, int], first: int, count: int) -> None:
    """``count`` images of each digit, from the ``first`` on, as PNG files in one folder a class."""
    digits = load_digits()
    for name, digit in classes.items():
        (folder / name).mkdir(parents=True)
        for index in np.flatnonzero(digits.target == digit)[first : first + count]:
            pixels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(folder / name / f"{index}.png")


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageFolder of digits with odd names; never changed by a test. Odd images are tests/core/test_images.py's."""
    root = tmp_path_factory.mktemp("images") / "meine Bilder é"
    classes = {"null 0": 0, "eins, 'one'": 1, "deux – 2": 2}
    save_digits(root / "train", classes, 0, 12)
    save_digits(root / "val", classes, 12, 6)
    zero = root / "train" / "null 0"
    image = Image.open(next(iter(sorted(zero.glob("*.png"))))).convert("RGB")
    image.convert("CMYK").save(zero / "print.JPG")
    Path(os.fsdecode(os.fsencode(zero / "latin") + b"\xe9.png")).write_bytes((zero / "print.JPG").read_bytes())
    (zero / ".hidden.png").write_bytes(b"not an image")
    (zero / "notes.txt").write_text("not an image")
    (root / "train" / ".cache").mkdir()
    (root / "val" / "empty").mkdir()
    return root
