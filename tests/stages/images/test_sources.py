"""Which source a ``data.source`` is of; the digits, timm's datasets, and a source of another package."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from small_run import LIGHT_AUGMENT, SPEC
from torch.utils.data import IterableDataset

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError, UsageError
from vitcompress.stages.data import stage as data_stage
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import eval_loader, train_loader, train_views
from vitcompress.stages.images.sources import (
    StreamSplit,
    data_digest,
    installed,
    open_images,
    recorded_images,
    source_of,
    timm_datasets,
)


def test_kinds_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("digits", "hfds/cifar10", "WDS/x", "torch/image_folder", "photos/cats", "/data/x", "other/x")
    assert [source_of(source).name for source in given] == ["digits", "timm", "timm", "timm", *["folder"] * 3]
    (tmp_path / "torch" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert source_of("torch").name == "folder"  # what is on disk comes first


def test_the_digits_are_held_out_stratified_and_the_same_each_time() -> None:
    def keys(split: Any) -> list[int]:
        return [key for key, _ in split.items]

    np.random.seed(1)
    images = open_images(DataConfig())
    np.random.seed(2)
    assert keys(open_images(DataConfig()).val) == keys(images.val)
    assert keys(open_images(DataConfig(split_seed=1)).val) != keys(images.val)
    assert images.classes == tuple("0123456789")
    assert sorted(keys(images.train) + keys(images.val)) == list(range(1797))
    share = Counter(images.val.labels)
    whole = Counter(load_digits().target.tolist())
    assert all(abs(share[label] - 0.2 * count) <= 1 for label, count in whole.items())
    image, label = images.train[0]
    assert (image.size, image.mode) == ((32, 32), "RGB")
    pixels = load_digits().images[images.train.items[0][0]]
    shown = np.asarray(image.resize((8, 8), Image.Resampling.BOX))[..., 0]
    assert np.corrcoef(shown.ravel(), pixels.ravel())[0, 1] > 0.97
    assert label == load_digits().target[images.train.items[0][0]]
    assert "359 of 1797 images held out, stratified by class, split seed 0" in images.split
    assert list(images.files()) == []


# ---- timm's datasets


def prefixed(root: Path, **changes: Any) -> DataConfig:
    return DataConfig(source="torch/image_folder", root=str(root), **changes)


def test_a_prefixed_source_is_read_through_timm(digits_folder: Path, tmp_path: Path) -> None:
    images, plain = open_images(prefixed(digits_folder)), open_images(DataConfig(source=str(digits_folder)))
    assert images.classes == plain.classes
    assert (len(images.train), len(images.val)) == (80, 30)
    assert [images.train[index][1] for index in (0, 17, 79)] == [plain.train[index][1] for index in (0, 17, 79)]
    assert images.split == "split 'validation' of torch/image_folder"
    shutil.copytree(digits_folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "val" / "digit-4")
    with pytest.raises(DataError, match=r"other classes .*digit-4"):
        open_images(prefixed(tmp_path / "copy"))
    with pytest.raises(DataError, match=r"'torch/image_folder' \(root '.*gone', split 'train'\) cannot be opened: "):
        open_images(prefixed(tmp_path / "gone"))


def test_a_reader_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs a package that is not installed .*pip install datasets"):
        open_images(DataConfig(source="hfds/some/set"))


class Plain:
    """A dataset that carries no names of its classes."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 3:
            raise OSError("truncated")
        return Image.new("L", (4, 4)), np.int64(index % 2 + 5 * (index // 4))  # type: ignore[return-value]


class Stream(IterableDataset[Any]):
    """Five images that are read in order."""

    class_to_idx = {"a": 0, "b": 1}  # noqa: RUF012
    last = 0

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return ((Image.new("L", (4, 4), value), self.last if value == 4 else value % 2) for value in range(5))


def served(monkeypatch: pytest.MonkeyPatch, dataset: object) -> None:
    monkeypatch.setattr(timm_datasets, "_create", lambda *_: dataset)


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_class_names_come_from_a_file_or_from_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    dataset: Any = Plain()
    served(monkeypatch, dataset)
    with pytest.raises(DataError, match="does not name its classes; write them to a file"):
        open_images(DataConfig(source="torch/plain"))
    (tmp_path / "names").write_bytes(((end or "\n").join(("a cat", "a dog")) + end).encode())
    images = open_images(DataConfig(source="torch/plain", labels=str(tmp_path / "names")))
    assert images.classes == ("a cat", "a dog")
    image, label = images.train[1]
    assert (image.mode, label, type(label)) == ("RGB", 1, int)
    with pytest.raises(DataError, match=r"image 3 of the dataset cannot be read \(truncated\)"):
        images.train[3]
    with pytest.raises(DataError, match="image 4 of the dataset is of class 5, and there are 2 classes, counted from"):
        images.train[4]
    features = {"fine": SimpleNamespace(names=["cat", "dog"])}
    dataset.reader = SimpleNamespace(dataset=SimpleNamespace(features=features), label_key="fine")
    assert open_images(DataConfig(source="hfds/x")).classes == ("cat", "dog")


def test_a_stream_is_read_in_order_and_must_know_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, Stream())
    with pytest.raises(DataError, match=r"does not say its length; set data\.val_samples"):
        open_images(DataConfig(source="wds/x", train_samples=5))
    images = open_images(DataConfig(source="wds/x", train_samples=9, val_samples=3))
    assert isinstance(images.train, StreamSplit)
    assert (len(images.train), len(images.val)) == (9, 3)
    assert [(image.mode, label) for image, label in images.train] == [("RGB", n % 2) for n in range(5)]
    with pytest.raises(DataError, match=r"ended after 5 images, and data\.val_samples says 3; set data\.val_samples=5"):
        list(images.val)
    monkeypatch.setattr(Stream, "last", 2)
    with pytest.raises(DataError, match="image 4 of the stream is of class 2, and there are 2 classes, counted from 0"):
        list(images.train)
    monkeypatch.setattr(Stream, "__len__", lambda self: 5, raising=False)
    assert len(open_images(DataConfig(source="wds/x")).val) == 5


def test_a_source_without_a_folder_is_known_by_settings_reader_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "names.txt"
    config = DataConfig(source="wds/x", root="https://host/shards", labels=str(labels))
    changes: list[dict[str, Any]] = [{}, {"train_split": "a"}, {"val_split": "a"}, {"train_samples": 9}]
    changes += [{"val_samples": 9}, {"source": "wds/y"}]

    def digest(**change: Any) -> str:
        data_digest.cache_clear()
        return data_digest(config.model_copy(update=change))

    with pytest.raises(DataError, match=r"labels file '.*names.txt' cannot be read \(No such file.*check data.labels"):
        digest()
    labels.write_text("cat\ndog\n")
    seen = [digest(**change) for change in changes]
    labels.write_text("dog\ncat\n")
    seen.append(digest())
    for version in ("3.0", "3.1"):
        monkeypatch.setattr(timm_datasets, "version", {"webdataset": version}.__getitem__)
        seen.append(digest())
    assert seen[-1] == digest()
    assert len(set(seen)) == len(seen)


# ---- A source of another package

MANIFEST = """
import csv
from functools import partial
from pathlib import Path

from vitcompress.stages.images.sources.folder import open_inside
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.splits import Images, ListedSplit


class Manifest(Source):
    name = "manifest"
    is_path = True

    def owns(self, source):
        return source.endswith(".csv")

    def images(self, config):
        root = Path(config.source).parent
        with open(config.source) as file:
            rows = list(csv.DictReader(file))
        classes = sorted({row["label"] for row in rows})

        def split(name):
            items = [(row["path"], classes.index(row["label"])) for row in rows if row.get("split", "train") == name]
            return ListedSplit(items, partial(open_inside, root), root)

        return Images(tuple(classes), split("train"), split("val") if "split" in rows[0] else None, "by column")

    def state(self, config):
        return [Path(config.source).read_text()]
"""


@pytest.fixture
def package(install: Callable[..., Path]) -> Iterator[Path]:
    """An installed package with a source; the file of its entry points."""
    points = install("[vitcompress.sources]\nmanifest = pretend:Manifest\n", MANIFEST)
    installed.cache_clear()
    yield points
    installed.cache_clear()


def manifest(folder: Path, *, split: bool) -> Path:
    """A CSV file of 12 numbered images beside it, of three classes; the fourth image of each is held out."""
    rows = [f"path,label{',split' if split else ''}"]
    for index in range(12):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index:02d}.png")
        rows.append(f"{index:02d}.png,{'cba'[index % 3]}{(',val' if index > 8 else ',train') if split else ''}")
    (folder / "images.csv").write_text("\n".join(rows))
    return folder / "images.csv"


@pytest.mark.usefixtures("package")
def test_a_source_of_another_package_goes_through_listing_checks_and_loaders(tmp_path: Path, context: Context) -> None:
    file = manifest(tmp_path, split=True)
    record = data_stage.run(DataConfig(source=str(file)), data_stage.Inputs(), context)
    assert (record.classes, record.train_images, record.val_images) == (("a", "b", "c"), 9, 3)
    assert (record.split, record.checked, record.duplicates) == ("by column", "all 12 decoded", 0)
    _, images = recorded_images(record)
    loader = train_loader(train_views(images.train, LIGHT_AUGMENT, SPEC, 0), batch_size=3, seed=0, workers=2)
    assert sorted(label for _, labels in loader for label in labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ((held_out, labels),) = eval_loader(images.val, SPEC, batch_size=4, workers=2)
    assert labels.tolist() == [2, 1, 0]
    reds = ((held_out[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().tolist()
    assert reds == [9, 10, 11]
    (tmp_path / "04.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"04\.png cannot be read"):
        data_stage.run(DataConfig(source=str(file)), data_stage.Inputs(), context)
    left_out = open_images(DataConfig(source=str(file)), {"04.png"})
    assert len(left_out.train) == 8


@pytest.mark.usefixtures("package")
def test_images_are_held_out_where_the_source_has_no_split(tmp_path: Path) -> None:
    images = open_images(DataConfig(source=str(manifest(tmp_path, split=False)), val_fraction=0.25))
    assert sorted(images.val.labels) == [0, 1, 2]
    assert sorted(key for key, _ in (*images.train.items, *images.val.items)) == [f"{n:02d}.png" for n in range(12)]


def test_a_source_that_cannot_be_loaded_is_named(package: Path) -> None:
    package.write_text("[vitcompress.sources]\ngone = pretend:Gone\n")
    with pytest.raises(UsageError, match=r"the source of images 'gone' \(pretend:Gone\) .* cannot be loaded"):
        source_of("/data")
