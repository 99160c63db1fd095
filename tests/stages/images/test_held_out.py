"""One pass over the held-out images: the same inputs as one pass each, and the same images known as the same."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import SPEC

from vitcompress.core.errors import DataError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.held_out import held_out_batches, image_names, images_digest
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.sources import ListedSplit, StreamSplit, open_images

OTHER = PreprocessSpec(size=24, crop_pct=0.8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
SPECS = [SPEC, OTHER, SPEC.model_copy(update={"input": "uint8"}), OTHER.model_copy(update={"mean": (0.0, 0.0, 0.0)})]


def held_out(source: str | Path = "digits"):
    images = open_images(DataConfig(source=str(source)))
    return images.val, images.classes


def digest_of(split, classes) -> str:
    batches = list(held_out_batches(split, [SPEC], batch_size=8, workers=0))
    labels = np.concatenate([batch.labels for batch in batches])
    return images_digest(split, classes, labels, [digest for batch in batches for digest in batch.pixels])


def stream(values=range(10)) -> StreamSplit:
    items = [(Image.new("RGB", (40, 30), (value,) * 3), value % 3) for value in values]
    return StreamSplit(items, len(items), 1000)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_preprocessing_gets_what_a_pass_of_its_own_gave(digits_folder: Path, workers: int) -> None:
    split, _ = held_out(digits_folder)
    batches = list(held_out_batches(split, SPECS, batch_size=8, workers=workers))
    assert [len(batch.labels) for batch in batches] == [8, 8, 8, 6]
    for spec in SPECS:
        alone = list(eval_loader(split, spec, batch_size=8, workers=0))
        for batch, (images, labels) in zip(batches, alone, strict=True):
            assert batch.inputs[spec].dtype == images.numpy().dtype
            np.testing.assert_array_equal(batch.inputs[spec], images.numpy())
            np.testing.assert_array_equal(batch.labels, labels.numpy())
    assert {digest for batch in batches for digest in batch.pixels} == {""}


def test_an_image_is_opened_once_whatever_the_number_of_preprocessings() -> None:
    opened: Counter[int] = Counter()

    def load(key: int) -> Image.Image:
        opened[key] += 1
        return Image.new("RGB", (32, 32), (key,) * 3)

    split = ListedSplit([(key, 0) for key in range(5)], load)
    assert sum(len(batch.labels) for batch in held_out_batches(split, SPECS, batch_size=2, workers=0)) == 5
    assert opened == dict.fromkeys(range(5), 1)


def test_images_are_named_by_their_path_or_their_position(digits_folder: Path, tmp_path: Path) -> None:
    assert image_names(held_out()[0], 359)[358] == "image 358"
    assert image_names(stream(), 2) == ("image 0", "image 1")
    root = shutil.copytree(digits_folder, tmp_path / "copy")
    (root / "val" / "digit-0" / "000.png").rename(root / "val" / "digit-0" / os.fsdecode(b"0\xff.png"))
    split, classes = held_out(root)
    names = image_names(split, 30)
    assert (names[0], names[2], names[29]) == ("digit-0/001.png", "digit-0/0\\xff.png", "digit-9/002.png")
    assert len(digest_of(split, classes)) == 64


def test_the_digest_notices_size_name_class_and_order_but_not_place_and_time(
    digits_folder: Path, tmp_path: Path
) -> None:
    known = {digest_of(*held_out(digits_folder))}
    root = shutil.copytree(digits_folder, tmp_path / "copy")
    for path in root.rglob("*.png"):
        os.utime(path, (1, 1))
    assert known == {digest_of(*held_out(root))}
    first = root / "val" / "digit-0" / "000.png"
    with first.open("ab") as file:
        file.write(b"\0")
    known.add(digest_of(*held_out(root)))
    first.rename(first.with_name("0.png"))
    known.add(digest_of(*held_out(root)))
    (first.with_name("0.png")).rename(root / "val" / "digit-1" / "0.png")
    known.add(digest_of(*held_out(root)))
    split, classes = held_out(root)
    known.add(digest_of(replace(split, items=split.items[::-1]), classes))
    known.add(digest_of(split, classes[::-1]))
    assert len(known) == 6
    (root / "val" / "digit-3" / "001.png").unlink()
    with pytest.raises(DataError, match=r"digit-3/001\.png cannot be looked at"):
        images_digest(split, classes, np.array(split.labels))


def test_images_that_are_no_files_are_known_by_their_pixels() -> None:
    classes = ("a", "b", "c")
    assert digest_of(*held_out()) == digest_of(*held_out())
    other = open_images(DataConfig(split_seed=1))
    assert digest_of(other.val, other.classes) != digest_of(*held_out())
    assert digest_of(stream(), classes) != digest_of(stream([*range(9), 12]), classes)  # another picture, same class
    assert digest_of(stream(), classes) != digest_of(stream([3, *range(1, 10)]), classes)
