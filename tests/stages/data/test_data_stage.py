from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.stages.data.stage import Inputs, run
from vitcompress.stages.images import listing
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import recorded_images


def said(context: Context) -> str:
    assert isinstance(context.console.file, io.StringIO)
    return context.console.file.getvalue()


@pytest.fixture
def copied(digits_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(digits_folder, tmp_path / "data")
    return tmp_path / "data"


def test_the_digits_are_described(context: Context) -> None:
    record = run(DataConfig(), Inputs(), context)
    assert (record.train_images, record.val_images) == (1438, 359)
    assert record.classes == tuple("0123456789")
    assert record.checked == "not needed: embedded"
    config, images = recorded_images(type(record).model_validate_json(record.model_dump_json()))
    assert config == DataConfig()
    assert len(images.train) == 1438


def test_a_folder_is_described_and_decoded(digits_folder: Path, context: Context) -> None:
    record = run(DataConfig(source=str(digits_folder)), Inputs(), context)
    assert (record.train_images, record.val_images, len(record.classes)) == (80, 30, 10)
    assert record.split == "the images of val/"
    assert record.checked == "all 110 decoded"
    assert said(context) == ""


def test_the_split_of_a_run_does_not_follow_its_seed(digits_folder: Path, context: Context) -> None:
    from dataclasses import replace

    config = DataConfig(source=str(digits_folder / "train"))
    records = [run(config, Inputs(), replace(context, seed=seed)) for seed in (0, 1)]
    assert records[0] == records[1]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("check", ["auto", "full", "header"])
def test_an_image_that_does_not_open_is_named(copied: Path, context: Context, check: str, split: str) -> None:
    (copied / split / "digit-7" / "001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"{split}/digit-7/001\.png cannot be read \(.+\); replace or remove the file"):
        run(DataConfig(source=str(copied), check=check), Inputs(), context)


def test_a_truncated_image_is_found_by_decoding_alone(copied: Path, context: Context) -> None:
    path = copied / "train" / "digit-1" / "000.png"
    Image.effect_noise((64, 64), 60).save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    assert run(DataConfig(source=str(copied), check="header"), Inputs(), context).checked == "all 110 headers read"
    skipped = run(DataConfig(source=str(copied), check="skip"), Inputs(), context)
    assert skipped.checked == "not opened beforehand (data.check=skip)"
    with pytest.raises(DataError, match=r"digit-1/000\.png cannot be read"):
        run(DataConfig(source=str(copied)), Inputs(), context)


def test_a_prefixed_source_is_described(digits_folder: Path, context: Context) -> None:
    record = run(DataConfig(source="torch/image_folder", root=str(digits_folder)), Inputs(), context)
    assert (record.train_images, record.val_images) == (80, 30)
    assert record.checked == "not opened beforehand: read through timm"
    assert record.duplicates is None
    assert said(context).splitlines() == [
        "  note: read through timm: images are neither opened beforehand nor searched for duplicates"
    ]


def test_a_class_that_nobody_is_judged_on_is_noted(copied: Path, context: Context) -> None:
    shutil.rmtree(copied / "val" / "digit-2")
    assert len(run(DataConfig(source=str(copied)), Inputs(), context).classes) == 10
    assert "note: 1 of 10 classes have no held-out image" in said(context)


def test_files_that_are_no_images_are_noted(copied: Path, context: Context) -> None:
    for name in ("a.avif", "b.avif", "notes.txt"):
        (copied / "train" / "digit-2" / name).write_bytes(b"")
    assert run(DataConfig(source=str(copied)), Inputs(), context).train_images == 80
    assert "skipped, not recognised as images: 3 (2 .avif, 1 .txt)" in said(context)


def test_a_folder_is_listed_once(digits_folder: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    real = listing.list_class_folder

    def counting(root: Path, **keywords: bool) -> listing.Listing:
        listed.append(root.name)
        return real(root, **keywords)

    monkeypatch.setattr(listing, "list_class_folder", counting)
    run(DataConfig(source=str(digits_folder)), Inputs(), context)
    assert listed == ["train", "val"]


def test_how_images_were_checked_changes_nothing_for_later_stages(digits_folder: Path, context: Context) -> None:
    full, skipped = (
        run(DataConfig(source=str(digits_folder), check=check, crop_pct=0.9), Inputs(), context)
        for check in ("full", "skip")
    )
    assert full.identity() == skipped.identity()
    assert full.checked != skipped.checked
    config, images = recorded_images(type(skipped).model_validate_json(skipped.model_dump_json()))
    assert config == DataConfig(source=str(digits_folder), crop_pct=0.9)
    assert len(images.train) == 80
    older = skipped.model_copy(update={"config": {**skipped.config, "check": "skip"}})  # as records once were
    assert recorded_images(older)[0].check == "skip"


@pytest.mark.parametrize("check", ["full", "header"])
def test_a_decompression_bomb_is_named(
    copied: Path, context: Context, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    Image.new("RGB", (90, 90)).save(copied / "val" / "digit-5" / "bomb.png")
    with pytest.raises(DataError, match=r"digit-5/bomb\.png cannot be read \(it has 0 megapixels, more than the 0"):
        run(DataConfig(source=str(copied), check=check), Inputs(), context)
