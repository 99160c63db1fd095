from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from small_run import data_record

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.stages.images import sources
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.left_out import LeftOut
from vitcompress.stages.images.sources import StreamSplit, digit_image, open_images, recorded_images


def keys(split) -> list:
    return [key for key, _ in split.items]


def test_a_digit_keeps_its_ink() -> None:
    pixels = load_digits().images[0]
    shown = np.asarray(digit_image(pixels).resize((8, 8), Image.Resampling.BOX))[..., 0]
    assert np.corrcoef(shown.ravel(), pixels.ravel())[0, 1] > 0.97
    assert shown.mean() == pytest.approx(pixels.mean() * 255 / 16, rel=0.05)
    assert digit_image(np.full((8, 8), 16.0)).getextrema() == ((255, 255),) * 3


def test_a_recorded_folder_is_listed_once(
    digits_folder: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = data_record(str(digits_folder), context)
    asked = []
    real = sources.list_splits
    monkeypatch.setattr(sources, "list_splits", lambda source, left: asked.append(source) or real(source, left))
    sources._listed_once.cache_clear()
    first, again = recorded_images(record), recorded_images(record)
    assert asked == [str(digits_folder)]
    assert first[1].train.items is again[1].train.items
    assert first[0].augment == again[0].augment
    other = record.model_copy(update={"digest": "another"})
    assert recorded_images(other)[1] == first[1]
    assert len(asked) == 2
    sources._listed_once.cache_clear()


def test_a_class_must_keep_a_training_image(digits_folder: Path) -> None:
    config = DataConfig(source=str(digits_folder))
    gone = frozenset(f"train/digit-6/{index:03d}.png" for index in range(8))
    for left_out in (LeftOut(gone), LeftOut(frozenset(), gone)):
        with pytest.raises(DataError, match="no training image is left of class 'digit-6' in"):
            open_images(config, left_out)
    held_out = frozenset(f"val/digit-6/{index:03d}.png" for index in range(3))
    assert len(open_images(config, LeftOut(held_out)).val) == 27
    alone = frozenset(name.removeprefix("train/") for name in sorted(gone)[1:])
    with pytest.raises(DataError, match="class 'digit-6' has one image, too few to hold one out"):
        open_images(DataConfig(source=str(digits_folder / "train")), LeftOut(alone))


def prefixed(root: Path, **changes) -> DataConfig:
    return DataConfig(source="torch/image_folder", root=str(root), **changes)


def test_a_prefixed_source_is_read_through_timm(digits_folder: Path) -> None:
    images, plain = open_images(prefixed(digits_folder)), open_images(DataConfig(source=str(digits_folder)))
    assert images.classes == plain.classes
    assert (len(images.train), len(images.val)) == (80, 30)
    for index in (0, 17, 79):
        np.testing.assert_array_equal(np.asarray(images.train[index][0]), np.asarray(plain.train[index][0]))
        assert images.train[index][1] == plain.train[index][1]
    assert images.split == "split 'validation' of torch/image_folder"


def test_held_out_classes_with_other_indices_are_told(digits_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "val" / "digit-4")
    with pytest.raises(DataError, match=r"other classes .*digit-4"):
        open_images(prefixed(tmp_path / "copy"))


class Plain:
    """A dataset that carries no names of its classes."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 3:
            raise OSError("truncated")
        if index == 2:
            raise MemoryError
        return Image.new("L", (4, 4)), np.int64(index % 2)  # type: ignore[return-value]


def served(monkeypatch: pytest.MonkeyPatch, dataset: object) -> None:
    monkeypatch.setattr(sources, "_create", lambda *_: dataset)


def test_a_dataset_without_names_asks_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served(monkeypatch, Plain())
    with pytest.raises(DataError, match="does not name its classes; write them to a file"):
        open_images(DataConfig(source="torch/plain"))
    (tmp_path / "names").write_text("a\nb\n")
    images = open_images(DataConfig(source="torch/plain", labels=str(tmp_path / "names")))
    image, label = images.train[1]
    assert (image.mode, label, type(label)) == ("RGB", 1, int)
    with pytest.raises(DataError, match=r"image 3 of the dataset cannot be read \(truncated\)"):
        images.train[3]
    with pytest.raises(DataError, match=r"image 2 of the dataset cannot be read \(MemoryError\)"):
        images.train[2]


def stream(length: int | None):
    from torch.utils.data import IterableDataset

    class Stream(IterableDataset):
        class_to_idx = {"a": 0, "b": 1}  # noqa: RUF012

        def __iter__(self):
            return ((Image.new("L", (4, 4), value), value % 2) for value in range(5))

    if length is not None:
        Stream.__len__ = lambda self: length  # type: ignore[attr-defined]
    return Stream()


def test_a_stream_is_read_in_order_and_must_know_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, stream(None))
    with pytest.raises(DataError, match=r"does not say its length; set data\.train_samples"):
        open_images(DataConfig(source="wds/x"))
    with pytest.raises(DataError, match=r"set data\.val_samples"):
        open_images(DataConfig(source="wds/x", train_samples=5))
    images = open_images(DataConfig(source="wds/x", train_samples=5, val_samples=3))
    assert isinstance(images.train, StreamSplit)
    assert (len(images.train), len(images.val)) == (5, 3)
    assert [(image.mode, label) for image, label in images.train] == [("RGB", n % 2) for n in range(5)]
    with pytest.raises(DataError, match=r"ended after 5 images, and data\.val_samples says 3; set data\.val_samples=5"):
        list(images.val)
    served(monkeypatch, stream(5))
    assert len(open_images(DataConfig(source="wds/x")).val) == 5
    assert len(list(open_images(DataConfig(source="wds/x", train_samples=9, val_samples=5)).val)) == 5


def test_a_label_that_no_class_has_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("a\nb\n")
    config = DataConfig(source="torch/x", labels=str(tmp_path / "names"))
    listed, streamed = Plain(), stream(5)
    listed.__class__ = type(
        "Shifted", (Plain,), {"__getitem__": lambda self, index: (Image.new("L", (4, 4)), index + 1)}
    )
    streamed.__class__ = type("Shifted", (type(streamed),), {"__iter__": lambda self: iter([listed[0], listed[1]])})
    served(monkeypatch, listed)
    with pytest.raises(
        DataError, match="image 1 of the dataset is of class 2, and there are 2 classes, counted from 0"
    ):
        open_images(config).train[1]
    served(monkeypatch, streamed)
    with pytest.raises(DataError, match="image 1 of the stream is of class 2, and there are 2 classes, counted from 0"):
        list(open_images(config).train)


def test_the_digits_are_held_out_stratified_and_the_same_each_time() -> None:
    np.random.seed(1)
    images = open_images(DataConfig())
    np.random.seed(2)
    assert keys(open_images(DataConfig()).val) == keys(images.val)
    assert keys(open_images(DataConfig(split_seed=1)).val) != keys(images.val)
    assert images.classes == tuple("0123456789")
    assert sorted(keys(images.train) + keys(images.val)) == list(range(1797))
    share = Counter(label for _, label in images.val.items)
    whole = Counter(load_digits().target.tolist())
    assert all(abs(share[label] - 0.2 * count) <= 1 for label, count in whole.items())
    image, label = images.train[0]
    assert (image.size, image.mode) == ((32, 32), "RGB")
    assert label == load_digits().target[images.train.items[0][0]]
    assert "359 of 1797 images held out, stratified by class, split seed 0" in images.split


def test_a_folder_has_its_own_splits_or_is_split_by_class(digits_folder: Path, tmp_path: Path) -> None:
    images = open_images(DataConfig(source=str(digits_folder)))
    assert images.classes == tuple(f"digit-{digit}" for digit in range(10))
    assert (len(images.train), len(images.val), images.split) == (80, 30, "the images of val/")
    image, label = images.val[29]
    assert label == 9
    wanted = Image.open(digits_folder / "val" / "digit-9" / "002.png")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))

    root = shutil.copytree(digits_folder / "train", tmp_path / "copy")
    config = DataConfig(source=str(root), val_fraction=0.25)
    images = open_images(config)
    assert (len(images.train), len(images.val)) == (60, 20)
    assert set(Counter(label for _, label in images.val.items).values()) == {2}
    assert not set(keys(images.train)) & set(keys(images.val))
    assert keys(open_images(config).val) == keys(images.val)
    with pytest.raises(DataError, match="80 images of 10 classes are too few to hold out 79"):
        open_images(DataConfig(source=str(root), val_fraction=0.99))

    left_out = open_images(config, LeftOut(frozenset({"digit-0/000.png"})))
    (root / "digit-0" / "000.png").unlink()  # one that cannot be used is as if it were not there
    removed = open_images(config)
    assert (keys(left_out.train), keys(left_out.val)) == (keys(removed.train), keys(removed.val))
    (root / "digit-0" / "001.png").write_bytes(b"broken")
    images = open_images(config)
    with pytest.raises(DataError, match=r"digit-0/001\.png cannot be read"):
        [image for split in (images.train, images.val) for image in map(split.__getitem__, range(len(split)))]


def test_the_files_of_a_folder_are_all_its_images_but_those_left_out(digits_folder: Path, tmp_path: Path) -> None:
    config = DataConfig(source=str(digits_folder))
    for root in (digits_folder, digits_folder / "train"):
        files = list(open_images(DataConfig(source=str(root))).files(root))
        assert sorted(file.path for file in files) == sorted(root.rglob("*.png"))
        assert all(root / file.name == file.path for file in files)
        assert all(file.path.parent.name == f"digit-{file.label}" for file in files)
    assert sum(file.held_out for file in open_images(config).files(digits_folder)) == 30
    assert list(open_images(DataConfig()).files(digits_folder)) == []
    both = {"train/digit-1/003.png", "val/digit-4/001.png"}
    images = open_images(config, LeftOut(frozenset(both), frozenset({"train/digit-2/000.png", "val/digit-3/000.png"})))
    every, left = ({file.name for file in found.files(digits_folder)} for found in (open_images(config), images))
    assert every - left == {*both, "train/digit-2/000.png"}
    assert (len(images.train), len(images.val)) == (78, 29)

    root = shutil.copytree(digits_folder, tmp_path / "copy")
    for name in ("train/digit-0/a.avif", "train/digit-1/b.txt", "val/digit-1/c.TXT", "val/digit-1/.d.txt"):
        (root / name).write_bytes(b"")
    assert open_images(DataConfig(source=str(root))).skipped == {".avif": 1, ".txt": 2}
    assert open_images(DataConfig(source=str(root / "train"))).skipped == {".avif": 1, ".txt": 1}


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_class_names_come_from_a_file_or_from_the_dataset(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    names = tuple(f"number {digit}" for digit in range(10))
    (tmp_path / "names.txt").write_bytes(((end or "\n").join(names) + end).encode())
    assert open_images(prefixed(digits_folder, labels=str(tmp_path / "names.txt"))).classes == names
    dataset: Any = Plain()
    features = {"fine": SimpleNamespace(names=["cat", "dog"])}
    dataset.reader = SimpleNamespace(dataset=SimpleNamespace(features=features), label_key="fine")
    served(monkeypatch, dataset)
    assert open_images(DataConfig(source="hfds/x")).classes == ("cat", "dog")


def test_a_source_that_cannot_be_opened_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"'torch/image_folder' \(root '.*gone', split 'train'\) cannot be opened: "
    ) as e:
        open_images(prefixed(tmp_path / "gone"))
    assert "\n" not in str(e.value)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(DataError, match=r"needs a package that is not installed .*pip install datasets"):
        open_images(DataConfig(source="hfds/some/set"))
