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
from vitcompress.stages.images.sources import data_digest, open_images, recorded_images

datasets = pytest.importorskip("datasets")
NAMES = ["zebra", "ape", "cat"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def made(first: int, last: int, label: Any = None) -> Any:
    """Images known by their red value, with a column that is also called like a path."""
    names, texts = datasets.ClassLabel(names=NAMES), datasets.Value("string")
    cells = {
        "img": [{"bytes": encoded(number), "path": None} for number in range(first, last)],
        "filename": [str(number) for number in range(first, last)],
        "fine_label": [number % 3 if label is None else label for number in range(first, last)],
    }
    kinds = {"img": datasets.Image(), "filename": texts, "fine_label": names}
    return datasets.Dataset.from_dict(cells, features=datasets.Features(kinds))


@pytest.fixture(params=["saved", "repository"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """12 training images and 6 of a split `test`."""
    root, parts = tmp_path / request.param, {"train": made(0, 12), "test": made(12, 18)}
    if request.param == "saved":
        datasets.DatasetDict(parts).save_to_disk(root)
        return root
    (root / "data").mkdir(parents=True)
    files = "".join(f"  - {{split: {name}, path: data/{name}-*}}\n" for name in parts)
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    for name, part in parts.items():
        part.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root


def test_a_folder_with_named_splits(folder: Path, context: Context) -> None:
    config = DataConfig(source=str(folder))
    record = data_stage.run(config, data_stage.Inputs(), context)
    assert (record.classes, record.train_images, record.val_images) == (tuple(NAMES), 12, 6)
    _, images = recorded_images(record)
    assert [(images.val[at][0].getpixel((0, 0))[0], images.val[at][1]) for at in (0, 5)] == [(12, 0), (17, 2)]
    views = train_views(images.train, LIGHT_AUGMENT, SPEC, 0)
    loaders = [train_loader(views, batch_size=4, seed=0, workers=workers) for workers in (0, 2)]
    one, other = [[(pixels.sum().item(), labels.tolist()) for pixels, labels in loader] for loader in loaders]
    assert one == other
    (folder / "more.txt").touch()
    data_digest.cache_clear()
    assert data_digest(config) != record.digest


def test_one_split_several_classes_and_none(tmp_path: Path) -> None:
    def opened(stored: Any, name: str, **settings: Any) -> Any:
        stored.save_to_disk(tmp_path / name)
        return open_images(DataConfig(source=str(tmp_path / name), **settings))

    contest = datasets.DatasetDict({"train": made(0, 30), "test": made(30, 36, label=-1)})
    for images in (opened(made(0, 30), "one"), opened(contest, "contest")):
        assert (len(images.train), len(images.val)) == (24, 6)
    several = made(0, 30).map(lambda row: {"all": [row["fine_label"], 1]}, remove_columns=["fine_label"])
    several = several.cast_column("all", datasets.List(datasets.ClassLabel(names=NAMES)))
    images = opened(several, "several", columns=ColumnsConfig(label="all"), task="multilabel")
    assert (images.classes, {*images.train.labels}) == (tuple(NAMES), {(0, 1), (1,), (1, 2)})


def test_parquet_may_hold_the_images_themselves(tmp_path: Path) -> None:
    for at, column in enumerate((made(0, 30)["img"], [encoded(number) for number in range(30)])):
        file = tmp_path / f"{at}.parquet"
        datasets.Dataset.from_dict({"picture": column, "class": ["a", "b"] * 15}).to_parquet(file)
        split = open_images(DataConfig(source=str(file))).train
        assert [split[index][0].getpixel((0, 0))[0] for index in range(24)] == [key for key, _ in split.items]


def test_what_cannot_be_read_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.rglob("*0000*"):
        file.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"folder '.*' cannot be read \("):
        open_images(DataConfig(source=str(folder)))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="a package that is not installed: pip install datasets"):
        open_images(DataConfig(source=str(folder)))
