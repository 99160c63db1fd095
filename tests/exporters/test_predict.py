from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tiny_models import LABELS

from core.errors import DataError, ResultError, UsageError
from core.preprocess import PreprocessSpec
from exporters.bundle import open_bundle, write_bundle
from exporters.predict import image_files, predict, softmax


def test_labels_and_probabilities_are_torchs(
    bundle_folder: Path, digit_files: list[Path], model: torch.nn.Module, images: NDArray[np.float32]
) -> None:
    found = predict(open_bundle(bundle_folder), [digit_files[0].parent], top=3, batch=5)
    assert [entry.path for entry in found] == digit_files
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).double().softmax(1).numpy()
    assert len({entry.classes[0][0] for entry in found}) > 1  # not the same answer for every image
    for entry, row in zip(found, expected, strict=True):
        best = np.argsort(-row)[:3]
        assert [label for label, _ in entry.classes] == [LABELS[index] for index in best]
        np.testing.assert_allclose([share for _, share in entry.classes], row[best], atol=1e-4)


def test_all_classes_add_up_to_one(bundle_folder: Path, digit_files: list[Path]) -> None:
    (entry,) = predict(open_bundle(bundle_folder), digit_files[:1], top=99)
    shares = [share for _, share in entry.classes]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-12)


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e30, 0, -1e30]], dtype=np.float32)), [[1, 0, 0]])


def test_folders_are_searched_and_files_kept_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/er/c.webp", "notes.txt", "deep/labels.json"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).touch()
    odd = tmp_path / "no_suffix"
    odd.touch()
    names = [path.name for path in image_files([odd, tmp_path / "f"])]
    assert names == ["no_suffix", "a.jpg", "b.PNG", "c.webp"]


def test_an_unreadable_image_is_named(bundle_folder: Path, digit_files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(digit_files[0].read_bytes()[:40])
    with pytest.raises(DataError, match=r"broken\.png"):
        predict(open_bundle(bundle_folder), [digit_files[0], broken])


def test_nothing_to_predict_is_an_error(bundle_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    bundle = open_bundle(bundle_folder)
    with pytest.raises(DataError, match=r"no image found in .*empty"):
        predict(bundle, [empty])
    with pytest.raises(DataError, match="no image found in no path"):
        predict(bundle, [])
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        predict(bundle, [tmp_path / "gone.png"])


@pytest.mark.parametrize(("top", "batch"), [(0, 1), (1, 0)])
def test_impossible_counts_are_refused(bundle_folder: Path, digit_files: list[Path], top: int, batch: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        predict(open_bundle(bundle_folder), digit_files, top=top, batch=batch)


def test_logits_that_are_no_numbers_are_no_prediction(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, digit_files: list[Path]
) -> None:
    graph = onnx.load(onnx_file)
    bias = next(entry for entry in graph.graph.initializer if list(entry.dims) == [10])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.nan, dtype=np.float32), bias.name))
    onnx.save(graph, tmp_path / "nan.onnx")
    write_bundle(tmp_path / "b", onnx=tmp_path / "nan.onnx", engine=None, preprocess=spec, labels=LABELS, facts={})
    with pytest.raises(ResultError, match="not numbers"):
        predict(open_bundle(tmp_path / "b"), digit_files)


def test_predicting_imports_no_torch(bundle_folder: Path, digit_files: list[Path]) -> None:
    code = """
import sys
from pathlib import Path
from exporters.bundle import open_bundle
from exporters.predict import predict
found = predict(open_bundle(Path(sys.argv[1])), [Path(sys.argv[2])])
loaded = {"torch", "timm", "torchvision", "onnxslim", "tensorrt_rtx", "sklearn"} & set(sys.modules)
assert not loaded, loaded
sys.stdout.write(found[0].classes[0][0])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(bundle_folder), str(digit_files[0])],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout in LABELS


def test_exporters_import_nothing_heavy() -> None:
    code = """
import sys
import exporters.bundle, exporters.onnx, exporters.predict, exporters.runners, exporters.tensorrt
loaded = {"torch", "onnx", "onnxruntime", "onnxslim", "tensorrt", "tensorrt_rtx"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
