"""WebDataset shards on a disk: every image once, whatever reads them; damaged ones are named."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from vitcompress.core.errors import DataError
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import ListedSplit, StreamSplit, open_images
from vitcompress.stages.teacher.tuning import labels_of

pytest.importorskip("webdataset")
COUNTS = {"train": (5, 3, 4), "val": (5,)}


def number_of(image: Image.Image) -> int:
    """The number that a made image carries as its colour."""
    red, green, _ = np.asarray(image)[0, 0]
    return int(red) * 256 + int(green)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number // 256, number % 256, 0)).save(file, "PNG")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def make(root: Path, *, mode: str = "w", label: str = "cls") -> Path:
    """Shards of numbered images; the class is the number modulo 3."""
    root.mkdir(parents=True, exist_ok=True)
    number, info = 0, {}
    for split, lengths in COUNTS.items():
        names = [f"{split}-{index:04d}.tar" for index in range(len(lengths))]
        for name, length in zip(names, lengths, strict=True):
            with tarfile.open(root / name, mode) as tar:
                for _ in range(length):
                    content = str(number % 3) if label == "cls" else json.dumps({label: number % 3})
                    add(tar, f"some/{number:04d}.png", png(number))
                    add(tar, f"some/{number:04d}.{'cls' if label == 'cls' else 'json'}", content.encode())
                    number += 1
        info[split] = {"filenames": names, "shard_lengths": lengths, "num_samples": sum(lengths)}
        info[split] |= {} if label == "cls" else {"alt_label": label}
        info[split]["name"] = split
    (root / "_info.json").write_text(json.dumps({"splits": info}))
    (root / "labels.txt").write_text("zero\none\ntwo\n")
    return root


def config(root: Path) -> DataConfig:
    return DataConfig(source="wds/some", root=str(root), labels=str(root / "labels.txt"), val_split="val")


def test_every_image_is_read_at_any_place_with_its_class(tmp_path: Path) -> None:
    images = open_images(config(make(tmp_path / "shards")))
    assert isinstance(images.train, ListedSplit)
    found = [images.train[index] for index in (11, 4, 5, 0, 7, 8)]
    assert [(number_of(image), given) for image, given in found] == [(n, n % 3) for n in (11, 4, 5, 0, 7, 8)]
    assert labels_of(images.train).tolist() == [number % 3 for number in range(12)]
    assert [number_of(images.val[index][0]) for index in range(len(images.val))] == [12, 13, 14, 15, 16]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_more_readers_than_shards_see_each_image_once(tmp_path: Path, workers: int) -> None:
    split = open_images(config(make(tmp_path / "shards"))).val
    loader = DataLoader(split, batch_size=None, num_workers=workers, collate_fn=lambda one: number_of(one[0]))
    assert sorted(loader) == [12, 13, 14, 15, 16]


def test_a_shard_that_goes_away_meanwhile_is_named(tmp_path: Path) -> None:
    images = open_images(config(make(tmp_path / "shards")))
    (tmp_path / "shards" / "val-0000.tar").unlink()
    with pytest.raises(DataError, match=r"shard '.*val-0000\.tar' cannot be read \(No such file"):
        images.val[0]


@pytest.mark.parametrize("how", [{"mode": "w:gz"}, {"label": "kind"}])
def test_compressed_shards_and_labels_in_json_are_streamed(tmp_path: Path, how: dict[str, str]) -> None:
    images = open_images(config(make(tmp_path / "shards", **how)))
    assert isinstance(images.train, StreamSplit)
    assert sorted(number_of(image) for image, _ in images.val) == [12, 13, 14, 15, 16]


def cut(root: Path) -> None:
    path = root / "train-0001.tar"
    path.write_bytes(path.read_bytes()[:700])


def fewer(root: Path) -> None:
    info = json.loads((root / "_info.json").read_text())
    info["splits"]["val"]["num_samples"] = 9
    (root / "_info.json").write_text(json.dumps(info))


def bare(root: Path) -> None:
    with tarfile.open(root / "val-0000.tar", "w") as tar:
        add(tar, "a.png", png(1))


def from_one(root: Path) -> None:
    with tarfile.open(root / "val-0000.tar", "w") as tar:
        for number in range(5):
            add(tar, f"{number}.png", png(number))
            add(tar, f"{number}.cls", str(1 + number % 3).encode())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "train-0001.tar").unlink(), r"shard '.*train-0001\.tar' does not exist"),
        (cut, r"shard '.*train-0001\.tar' cannot be read"),
        (fewer, r"1 shards of split 'val' hold 5 images, and their description says 9"),
        (bare, r"sample 'a' of .*val-0000\.tar has no class"),
        (from_one, r"of split 'val' is of class 3, and there are 3 classes, counted from 0"),
    ],
)
def test_what_is_wrong_with_shards_is_told(tmp_path: Path, damage: Any, message: str) -> None:
    root = make(tmp_path / "shards")
    damage(root)
    with pytest.raises(DataError, match=message):
        open_images(config(root))


def piped(root: Path, **settings: Any) -> DataConfig:
    """The shards as a program's output, as they come from behind a URL."""
    labels = str(root.parent / "labels.txt")
    shutil.copyfile(root / "labels.txt", labels)
    names = {split: f"{split}-{{0000..{len(lengths) - 1:04d}}}.tar" for split, lengths in COUNTS.items()}
    counts = {split: sum(lengths) for split, lengths in COUNTS.items()}
    return DataConfig(
        source="wds/some",
        root=f"pipe:cat {root}",
        labels=labels,
        train_split=f"{names['train']}|{counts['train']}",
        val_split=f"{names['val']}|{counts['val']}",
        **settings,
    )


def test_shards_behind_a_url_are_copied_once_and_read_at_any_place(tmp_path: Path) -> None:
    root = make(tmp_path / "away")
    assert isinstance(open_images(piped(root)).val, StreamSplit)
    asked = piped(root, cache=str(tmp_path / "near"))
    images = open_images(asked)
    assert isinstance(images.train, ListedSplit)
    shutil.rmtree(root)
    again = open_images(asked)
    assert [number_of(again.train[index][0]) for index in (11, 4, 0)] == [11, 4, 0]
    assert [number_of(again.val[index][0]) for index in range(5)] == [12, 13, 14, 15, 16]


def test_a_shard_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "away")
    asked = piped(root, cache=str(tmp_path / "near"))
    (root / "train-0001.tar").unlink()
    with pytest.raises(DataError, match=r"shard '.*train-0001\.tar' cannot be copied to .*near"):
        open_images(asked)
    assert not list((tmp_path / "near").glob("*train-0001.tar"))
