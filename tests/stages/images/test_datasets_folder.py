"""Folders of Hugging Face's `datasets`: as saved, and as a repository; read offline, by random access."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_run import LIGHT_AUGMENT, SPEC

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.stages.data import stage as data_stage
from vitcompress.stages.images.config import ColumnsConfig, DataConfig
from vitcompress.stages.images.loaders import train_loader, train_views
from vitcompress.stages.images.sources import data_digest, open_images, recorded_images, source_of

datasets = pytest.importorskip("datasets")
NAMES = ["zebra", "ape", "cat"]
README = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
---
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def encoded(first: int, last: int) -> list[dict[str, Any]]:
    files = [io.BytesIO() for _ in range(first, last)]
    for number, file in enumerate(files, first):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return [{"bytes": file.getvalue(), "path": None} for file in files]


def made(first: int, last: int, label: Any = None) -> Any:
    """Images known by their red value, with a column that is also called like a path."""
    kinds = {
        "img": datasets.Image(),
        "filename": datasets.Value("string"),
        "fine_label": datasets.ClassLabel(names=NAMES),
    }
    labels = [number % 3 if label is None else label for number in range(first, last)]
    cells = {"img": encoded(first, last), "filename": list(map(str, range(first, last))), "fine_label": labels}
    return datasets.Dataset.from_dict(cells, features=datasets.Features(kinds))


@pytest.fixture(params=["saved", "repository"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """12 training images and 6 of a split `test`."""
    root, parts = tmp_path / request.param, {"train": made(0, 12), "test": made(12, 18)}
    if request.param == "saved":
        datasets.DatasetDict(parts).save_to_disk(root)
        return root
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text(README)
    for name, part in parts.items():
        part.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root


def test_a_folder_with_named_splits(folder: Path, context: Context) -> None:
    config = DataConfig(source=str(folder))
    assert source_of(config.source).name == "datasets"
    record = data_stage.run(config, data_stage.Inputs(), context)
    assert (record.classes, record.train_images, record.val_images) == (tuple(NAMES), 12, 6)
    _, images = recorded_images(record)
    assert [(images.val[at][0].getpixel((0, 0))[0], images.val[at][1]) for at in (0, 5)] == [(12, 0), (17, 2)]
    views = train_views(images.train, LIGHT_AUGMENT, SPEC, 0)
    loaders = [train_loader(views, batch_size=4, seed=0, workers=workers) for workers in (0, 2)]
    batches = [[(pixels.sum().item(), labels.tolist()) for pixels, labels in loader] for loader in loaders]
    assert batches[0] == batches[1]
    assert len(batches[0]) == 3
    (folder / "more.txt").touch()
    data_digest.cache_clear()
    assert data_digest(config) != record.digest


def test_one_split_several_classes_and_none(tmp_path: Path) -> None:
    made(0, 30).save_to_disk(tmp_path / "one")
    images = open_images(DataConfig(source=str(tmp_path / "one")))
    assert (len(images.train), len(images.val)) == (24, 6)
    unlabelled = {"train": made(0, 30), "test": made(30, 36, label=-1)}  # as where the truth is kept for a contest
    datasets.DatasetDict(unlabelled).save_to_disk(tmp_path / "contest")
    images = open_images(DataConfig(source=str(tmp_path / "contest")))
    assert (len(images.train), len(images.val)) == (24, 6)
    several = made(0, 30).map(lambda row: {"all": [row["fine_label"], 1]}, remove_columns=["fine_label"])
    several = several.cast_column("all", datasets.List(datasets.ClassLabel(names=NAMES)))
    several.save_to_disk(tmp_path / "several")
    columns = ColumnsConfig(label="all")
    images = open_images(DataConfig(source=str(tmp_path / "several"), columns=columns, task="multilabel"))
    assert images.classes == tuple(NAMES)
    assert {*images.train.labels} == {(0, 1), (1,), (1, 2)}


def test_parquet_may_hold_the_images_themselves(tmp_path: Path) -> None:
    for at, column in enumerate((made(0, 30)["img"], [picture["bytes"] for picture in encoded(0, 30)])):
        table = datasets.Dataset.from_dict({"picture": column, "class": ["a", "b"] * 15})
        table.to_parquet(tmp_path / f"{at}.parquet")
        split = open_images(DataConfig(source=str(tmp_path / f"{at}.parquet"))).train
        assert [split[index][0].getpixel((0, 0))[0] for index in range(24)] == [key for key, _ in split.items]


def test_what_cannot_be_read_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.rglob("*0000*"):
        file.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"folder '.*' cannot be read \("):
        open_images(DataConfig(source=str(folder)))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="a package that is not installed: pip install datasets"):
        open_images(DataConfig(source=str(folder)))
