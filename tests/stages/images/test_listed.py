"""Held-out images found again on another machine: by name where they are files, by pixels where they are not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import SPEC

from vitcompress.core.errors import BundleError, DataError
from vitcompress.stages.images import listed as listing
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.held_out import held_out_batches
from vitcompress.stages.images.listed import Listed, batches, listed, sample, write_zip
from vitcompress.stages.images.loaders import sample as sample_in_torch
from vitcompress.stages.images.sources import StreamSplit, open_images

OTHER = SPEC.model_copy(update={"size": 24, "input": "uint8"})


def of(source: str | Path) -> tuple[object, Listed]:
    split = open_images(DataConfig(source=str(source))).val
    read = list(held_out_batches(split, [SPEC], batch_size=8, workers=0))
    labels = np.concatenate([batch.labels for batch in read])
    return split, listed(split, labels, [digest for batch in read for digest in batch.pixels])


@pytest.mark.parametrize("threads", [1, 3])
def test_images_in_a_zip_are_read_as_where_they_were(threads: int, tmp_path: Path) -> None:
    split, images = of("digits")
    assert write_zip(split, tmp_path / "images.zip") == ""
    (tmp_path / "list.json").write_text(images.text())
    assert Listed.read(tmp_path / "list.json") == images
    open_one = images.inside_zip(tmp_path / "images.zip")
    found = list(batches(images, open_one, [SPEC, OTHER], batch_size=100, threads=threads))
    wanted = list(held_out_batches(split, [SPEC, OTHER], batch_size=100, workers=0))
    for one, other in zip(found, wanted, strict=True):
        for spec in (SPEC, OTHER):
            np.testing.assert_array_equal(one.inputs[spec], other.inputs[spec])
        np.testing.assert_array_equal(one.labels, other.labels)
    pixels = [digest for batch in found for digest in batch.pixels]
    images.same_pixels(pixels, "there")
    with pytest.raises(DataError, match=r"1 of the 359 held-out images in 'there' .* '000007.png'"):
        images.same_pixels([*pixels[:7], "0" * 64, *pixels[8:]], "there")
    np.testing.assert_array_equal(sample(images, open_one, SPEC, 9), sample_in_torch(split, SPEC, 9).numpy())


def test_the_same_images_give_the_same_zip_and_large_ones_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = StreamSplit([(Image.new("RGB", (40, 30), (9 * n,) * 3), 0) for n in range(5)], 5, 1)
    paths = [tmp_path / name for name in ("one.zip", "two.zip", "large.zip")]
    assert (write_zip(split, paths[0]), write_zip(split, paths[1])) == ("", "")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    monkeypatch.setattr(listing, "LARGEST_ZIP", 100)
    assert "they would have about" in write_zip(split, paths[2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "two.zip"]


def test_files_are_found_below_the_folder_of_the_split_and_its_own(digits_folder: Path, tmp_path: Path) -> None:
    split, images = of(digits_folder)
    for data in (digits_folder, digits_folder / "val"):
        open_one = images.below(data)
        (batch,) = batches(images, open_one, [SPEC], batch_size=64, threads=2)
        (wanted,) = held_out_batches(split, [SPEC], batch_size=64, workers=0)
        np.testing.assert_array_equal(batch.inputs[SPEC], wanted.inputs[SPEC])
    with pytest.raises(DataError, match="30 of the 30 held-out images are not in"):
        images.below(tmp_path)


def test_a_name_that_is_no_text_survives_and_one_outside_is_not_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"a/latin\xe9.png")
    images = Listed(((name, 0, "0" * 64),), files=True, folder="val/")
    (tmp_path / "list.json").write_text(images.text())
    assert Listed.read(tmp_path / "list.json") == images
    with pytest.raises(DataError, match=r"the first is 'a/latin\\xe9.png'"):
        images.below(tmp_path)
    outside = replace(images, images=(("../list.json", 0, "0" * 64),))
    with pytest.raises(BundleError, match="outside"):
        outside.below(tmp_path)
