from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from made_bundles import make

from vitcompress.core.errors import DataError, ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.predict import image_files, predict


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
    files = [digit_files[0], broken, *digit_files[1:3]]
    found = list(predict(open_bundle(bundle_folder), files, batch=2))
    assert [entry.path for entry in found] == files
    assert "broken.png cannot be read" in found[1].error
    assert found[1].classes == ()
    alone = list(predict(open_bundle(bundle_folder), digit_files[:3], batch=2))
    assert [entry.classes[0][0] for entry in (found[0], *found[2:])] == [entry.classes[0][0] for entry in alone]


def test_nothing_to_predict_is_an_error(bundle_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    bundle = open_bundle(bundle_folder)
    with pytest.raises(DataError, match=r"no image found in .*empty"):
        list(predict(bundle, [empty]))
    with pytest.raises(DataError, match="no image found in no path"):
        list(predict(bundle, []))
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        list(predict(bundle, [tmp_path / "gone.png"]))


def test_logits_that_are_no_numbers_are_no_prediction(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, digit_files: list[Path]
) -> None:
    graph = onnx.load(onnx_file)
    bias = next(entry for entry in graph.graph.initializer if list(entry.dims) == [10])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.nan, dtype=np.float32), bias.name))
    onnx.save(graph, tmp_path / "nan.onnx")
    make(tmp_path / "b", tmp_path / "nan.onnx", spec)
    with pytest.raises(ResultError, match="not numbers"):
        list(predict(open_bundle(tmp_path / "b"), digit_files))
