"""The data stage: what it records, images that cannot be used, and the same file twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nasty_images import noise
from PIL import Image
from small_run import said

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.core.records import DataRecord
from vitcompress.stages.data.bad_images import LISTED
from vitcompress.stages.data.duplicates import find_duplicates
from vitcompress.stages.data.stage import Inputs, check_of, run
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import data_digest, recorded_images
from vitcompress.stages.images.splits import File

BAD = ("train/digit-1/000.png", "train/digit-1/001.png", "train/digit-2/002.png", "val/digit-3/002.tif")


def notes(context: Context) -> list[str]:
    return [line.strip() for line in said(context).splitlines()]


def record_of(context: Context, source: object = "digits", **settings: Any) -> DataRecord:
    return run(DataConfig(source=str(source), **settings), Inputs(), context)


@pytest.fixture
def copied(digits_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_folder, tmp_path / "data"))


@pytest.fixture
def damaged(copied: Path) -> Path:
    """Two truncated training images, one that is text, and a held-out one of floating-point values."""
    for name in BAD[:2]:
        noise(64, 64).save(copied / name)
        (copied / name).write_bytes((copied / name).read_bytes()[:-1500])
    (copied / BAD[2]).write_text("no image")
    (copied / BAD[3]).with_suffix(".png").unlink()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(copied / BAD[3])
    return copied


@pytest.fixture
def doubled(copied: Path) -> Path:
    """Two held-out images copied into training (one of them twice), and a training image under another class too."""
    for name in ("a", "b"):
        shutil.copy(copied / "val" / "digit-1" / "000.png", copied / "train" / "digit-1" / f"{name}.png")
    (copied / "train" / "digit-2" / "c.png").symlink_to(copied / "val" / "digit-2" / "001.png")
    shutil.copy(copied / "train" / "digit-3" / "000.png", copied / "train" / "digit-4" / "d.png")
    return copied


# ---- What is recorded


def test_the_digits_and_a_prefixed_source_are_not_opened_beforehand(digits_folder: Path, context: Context) -> None:
    record = record_of(context)
    assert (record.train_images, record.val_images) == (1438, 359)
    assert record.classes == tuple("0123456789")
    assert record.checked == "not needed: embedded"
    config, images = recorded_images(DataRecord.model_validate_json(record.model_dump_json()))
    assert config == DataConfig()
    assert len(images.train) == 1438
    record = record_of(context, "torch/image_folder", root=str(digits_folder))
    assert (record.train_images, record.val_images, record.duplicates) == (80, 30, None)
    assert record.checked == "not opened beforehand: read through timm"
    assert notes(context) == [
        "note: read through timm: images are neither opened beforehand nor searched for duplicates"
    ]


def test_a_folder_is_described_and_what_is_not_judged_or_no_image_is_noted(copied: Path, context: Context) -> None:
    record = record_of(context, copied)
    assert (record.train_images, record.val_images) == (80, 30)
    assert record.classes == tuple(f"digit-{digit}" for digit in range(10))
    assert (record.split, record.checked) == ("the images of val/", "all 110 decoded")
    assert (record.duplicates, record.contradictory, notes(context)) == (0, 0, [])
    shutil.rmtree(copied / "val" / "digit-2")
    for name in ("a.avif", "b.avif", "notes.txt"):
        (copied / "train" / "digit-2" / name).write_bytes(b"")
    record = record_of(context, copied)
    assert (len(record.classes), record.train_images, record.val_images) == (10, 80, 27)
    assert notes(context) == [
        "note: 3 files skipped, which are no images by suffix: .avif, .txt",
        "note: 1 of 10 classes have no held-out image",
    ]


def test_settings_that_change_no_image_change_nothing_for_later_stages(digits_folder: Path, context: Context) -> None:
    changes: list[dict[str, Any]] = [{}, {"check": "skip"}, {"on_bad_image": "skip"}, {"on_duplicates": "drop"}]
    records = [record_of(context, digits_folder, crop_pct=0.9, **change) for change in changes]
    assert all(record.identity() == records[0].identity() for record in records)
    assert records[0].checked != records[1].checked
    config, images = recorded_images(DataRecord.model_validate_json(records[1].model_dump_json()))
    assert config == DataConfig(source=str(digits_folder), crop_pct=0.9)
    assert len(images.train) == 80


# ---- Images that cannot be used


def test_all_of_them_are_named_with_their_reasons(damaged: Path, context: Context) -> None:
    with pytest.raises(DataError) as caught:
        record_of(context, damaged)
    head, *lines, last = str(caught.value).splitlines()
    assert head == f"4 of 110 images in '{damaged}' cannot be used:"
    assert [line.strip().partition(": ")[0] for line in lines] == list(BAD)
    for line, reason in ((0, "image file is truncated"), (2, "no image of a known kind"), (3, "32-bit floating-point")):
        assert reason in lines[line]
    assert last == "repair or remove them, or leave them out with data.on_bad_image=skip."
    assert not (context.run.root / LISTED).exists()
    with pytest.raises(DataError, match="2 of 110 images"):  # what headers show
        record_of(context, damaged, check="header")
    assert record_of(context, damaged, check="skip").checked == "not opened beforehand (data.check=skip)"


def test_of_many_the_first_are_named_and_none_left_to_judge_by_is_told(damaged: Path, context: Context) -> None:
    for path in (damaged / "val").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(DataError) as caught:
        record_of(context, damaged)
    assert str(caught.value).startswith("33 of 110 images")
    assert "\n  and 13 more\n" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 + 20 + 1 + 1
    with pytest.raises(DataError, match="none of the held-out images can be used"):
        record_of(context, damaged, on_bad_image="skip")
    assert len((context.run.root / LISTED).read_text().splitlines()) == 33


def test_they_can_be_left_out_and_every_later_stage_does(damaged: Path, context: Context) -> None:
    record = record_of(context, damaged, on_bad_image="skip")
    assert (record.train_images, record.val_images, record.left_out) == (77, 29, BAD)
    assert notes(context) == ["note: 4 images of 110 left out of both splits: data/bad_images.txt"]
    listed = [line.split("\t") for line in (context.run.root / LISTED).read_text().splitlines()]
    assert [name for name, _ in listed] == list(BAD)
    assert all(reason for _, reason in listed)
    _, images = recorded_images(DataRecord.model_validate_json(record.model_dump_json()))
    for split, count in ((images.train, 77), (images.val, 29)):
        assert len([split[index] for index in range(len(split))]) == count  # every one opens
    for name in BAD:
        (damaged / name).unlink()
    data_digest.cache_clear()
    assert record_of(context, damaged, on_bad_image="skip").left_out == ()
    assert not (context.run.root / LISTED).exists()  # the list of an earlier run is removed


def test_skipping_decodes_any_number_of_images_unless_told_to_open_none(digits_folder: Path, context: Context) -> None:
    many = 10**6
    assert check_of(DataConfig(on_bad_image="skip"), many) == "full"
    assert check_of(DataConfig(), many) == "header"
    assert check_of(DataConfig(on_bad_image="skip", check="header"), many) == "header"
    record_of(context, digits_folder, on_bad_image="skip", check="skip")
    assert notes(context) == ["note: data.on_bad_image=skip finds nothing while data.check=skip opens no image"]


# ---- The same file twice


def test_duplicates_are_told_by_default_and_can_be_an_error(doubled: Path, context: Context) -> None:
    record = record_of(context, doubled)
    assert (record.train_images, record.val_images) == (84, 30)
    assert (record.duplicates, record.contradictory, record.dropped) == (2, 2, ())
    first, second = notes(context)
    assert "warning: 2 of 30 held-out images are in training too, byte for byte" in first
    assert "val/digit-1/000.png = train/digit-1/a.png, val/digit-2/001.png = train/digit-2/c.png)" in first
    assert "warning: 2 training images have a copy in another class" in second
    assert "(train/digit-3/000.png = train/digit-4/d.png)" in second
    with pytest.raises(DataError, match=r"2 of 30 held-out images are in training too, .*val/digit-1/000\.png = train"):
        record_of(context, doubled, on_duplicates="error")
    record = record_of(context, doubled, on_duplicates="allow")
    assert (record.duplicates, record.contradictory) == (None, None)


def test_duplicates_can_be_left_out_of_training(doubled: Path, context: Context) -> None:
    record = record_of(context, doubled, on_duplicates="drop")
    assert record.dropped == ("train/digit-1/a.png", "train/digit-1/b.png", "train/digit-2/c.png")
    assert (record.train_images, record.val_images, record.duplicates) == (81, 30, 2)
    assert any("note: 3 images left out of training" in line for line in notes(context))
    _, images = recorded_images(DataRecord.model_validate_json(record.model_dump_json()))
    assert (len(images.train), len(images.val)) == (81, 30)
    assert find_duplicates(images.files()).held_out == []
    shutil.rmtree(doubled / "train" / "digit-5")
    shutil.copytree(doubled / "val" / "digit-5", doubled / "train" / "digit-5")
    with pytest.raises(DataError, match="no training image is left of class 'digit-5'"):
        record_of(context, doubled, on_duplicates="drop")


def test_files_of_one_size_and_one_end_are_told_apart_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    given = []
    for name, begin in (("t-a", b"1"), ("v-b", b"2"), ("t-c", b"1"), ("v-d", b"1")):
        (tmp_path / name).write_bytes(begin + b"e" * 5000)
        given.append(File(tmp_path / name, name, 0, held_out=name[0] == "v"))
    found = find_duplicates(given)
    assert [(one.name, other.name) for one, other in found.held_out] == [("v-d", "t-a")]
    assert [one.name for one, _ in found.training] == ["t-a", "t-c"]
    (tmp_path / "v-b").unlink()
    with pytest.raises(DataError, match="v-b cannot be read"):
        find_duplicates(given)
