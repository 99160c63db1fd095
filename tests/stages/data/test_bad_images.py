"""Images that cannot be used: all named at once, or left out."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from nasty_images import damaged_exif, noise
from PIL import Image

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.core.records import DataRecord
from vitcompress.stages.data.bad_images import LISTED
from vitcompress.stages.data.stage import Inputs, check_of, run
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import recorded_images


def said(context: Context) -> list[str]:
    assert isinstance(context.console.file, io.StringIO)
    return [line.strip() for line in context.console.file.getvalue().splitlines()]


@pytest.fixture
def damaged(digits_folder: Path, tmp_path: Path) -> Path:
    """Two truncated training images, one that is text, and a held-out one of floating-point values."""
    root = Path(shutil.copytree(digits_folder, tmp_path / "data"))
    for name in ("000", "001"):
        path = root / "train" / "digit-1" / f"{name}.png"
        noise(64, 64).save(path)
        path.write_bytes(path.read_bytes()[:-1500])
    (root / "train" / "digit-2" / "002.png").write_text("no image")
    (root / "val" / "digit-3" / "002.png").unlink()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(root / "val" / "digit-3" / "002.tif")
    return root


NAMES = (
    "train/digit-1/000.png",
    "train/digit-1/001.png",
    "train/digit-2/002.png",
    "val/digit-3/002.tif",
)


def test_all_of_them_are_named_with_their_reasons(damaged: Path, context: Context) -> None:
    with pytest.raises(DataError) as caught:
        run(DataConfig(source=str(damaged)), Inputs(), context)
    head, *lines, last = str(caught.value).splitlines()
    assert head == f"4 of 110 images in '{damaged}' cannot be used:"
    assert [line.strip().partition(": ")[0] for line in lines] == list(NAMES)
    assert "image file is truncated" in lines[0]
    assert "it is no image of a known kind" in lines[2]
    assert "32-bit floating-point values" in lines[3]
    assert last == "repair or remove them, or leave them out with data.on_bad_image=skip."
    assert not (context.run.root / LISTED).exists()


def test_headers_show_some_of_them(damaged: Path, context: Context) -> None:
    with pytest.raises(DataError, match="2 of 110 images"):
        run(DataConfig(source=str(damaged), check="header"), Inputs(), context)


def test_of_many_the_first_are_named_and_all_counted(damaged: Path, context: Context) -> None:
    for path in (damaged / "val").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(DataError) as caught:
        run(DataConfig(source=str(damaged)), Inputs(), context)
    assert str(caught.value).startswith("33 of 110 images")
    assert "\n  and 13 more\n" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 + 20 + 1 + 1


def test_they_can_be_left_out_and_every_later_stage_does(damaged: Path, context: Context) -> None:
    record = run(DataConfig(source=str(damaged), on_bad_image="skip"), Inputs(), context)
    assert (record.train_images, record.val_images) == (77, 29)
    assert record.left_out == NAMES
    assert said(context) == ["note: 4 images of 110 left out of both splits: data/bad_images.txt"]
    listed = [line.split("\t") for line in (context.run.root / LISTED).read_text().splitlines()]
    assert [name for name, _ in listed] == list(NAMES)
    assert all(reason for _, reason in listed)
    _, images = recorded_images(DataRecord.model_validate_json(record.model_dump_json()))
    for split, count in ((images.train, 77), (images.val, 29)):
        assert len([split[index] for index in range(len(split))]) == count  # every one opens


def test_with_no_held_out_image_left_nothing_can_be_judged(damaged: Path, context: Context) -> None:
    for path in (damaged / "val").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(DataError, match="none of the held-out images can be used"):
        run(DataConfig(source=str(damaged), on_bad_image="skip"), Inputs(), context)
    assert len((context.run.root / LISTED).read_text().splitlines()) == 33


def test_a_list_of_an_earlier_run_is_removed(damaged: Path, context: Context) -> None:
    config = DataConfig(source=str(damaged), on_bad_image="skip")
    run(config, Inputs(), context)
    for name in NAMES:
        (damaged / name).unlink()
    from vitcompress.stages.images import listing

    listing.data_digest.cache_clear()
    assert run(config, Inputs(), context).left_out == ()
    assert not (context.run.root / LISTED).exists()


def test_skipping_what_no_one_looks_for_is_said(digits_folder: Path, context: Context) -> None:
    config = DataConfig(source=str(digits_folder), on_bad_image="skip", check="skip")
    run(config, Inputs(), context)
    assert said(context) == ["note: data.on_bad_image=skip finds nothing while data.check=skip opens no image"]


def test_skipping_decodes_any_number_of_images() -> None:
    """One that were found later would end the run."""
    many = 10**6
    assert check_of(DataConfig(source="/x", on_bad_image="skip"), many) == "full"
    assert check_of(DataConfig(source="/x"), many) == "header"
    assert check_of(DataConfig(source="/x", on_bad_image="skip", check="header"), many) == "header"


def test_a_choice_that_changes_nothing_changes_nothing_downstream(digits_folder: Path, context: Context) -> None:
    base = DataConfig(source=str(digits_folder))
    records = [
        run(base.model_copy(update=change), Inputs(), context).identity()
        for change in ({}, {"on_bad_image": "skip"}, {"on_duplicates": "drop"}, {"on_duplicates": "allow"})
    ]
    assert all(record == records[0] for record in records)


def test_what_pillow_says_is_counted_and_told_once(
    digits_folder: Path, context: Context, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(digits_folder, tmp_path / "data"))
    for index in range(3):
        noise(seed=index).save(root / "train" / "digit-0" / f"photo-{index}.jpg", exif=damaged_exif())
    noise().quantize(16).save(root / "val" / "digit-0" / "palette.png", transparency=bytes(range(0, 160, 10)))
    run(DataConfig(source=str(root)), Inputs(), context)
    (line,) = said(context)
    assert line.startswith("note: 3 images have damaged EXIF data or tags, which are ignored (")
    assert capfd.readouterr() == ("", "")


def test_images_that_are_nearly_too_large_are_told(
    digits_folder: Path, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(digits_folder, tmp_path / "data"))
    noise(50, 50).save(root / "train" / "digit-0" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    run(DataConfig(source=str(root)), Inputs(), context)
    (line,) = said(context)
    assert "1 image has more than 0 megapixels: slow to decode" in line
    assert "digit-0/large.png" in line
