from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from core.context import Context
from core.errors import DataError
from stages.data.stage import Inputs, run
from stages.images.config import DataConfig
from stages.images.sources import recorded_images


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
    assert said(context) == ""


def test_a_class_that_nobody_is_judged_on_is_noted(copied: Path, context: Context) -> None:
    shutil.rmtree(copied / "val" / "digit-2")
    assert len(run(DataConfig(source=str(copied)), Inputs(), context).classes) == 10
    assert "note: 1 of 10 classes have no held-out image" in said(context)
