"""The same file in training and among the held-out images, or under two classes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.core.records import DataRecord
from vitcompress.stages.data import duplicates
from vitcompress.stages.data.duplicates import find_duplicates
from vitcompress.stages.data.stage import Inputs, run
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.left_out import File
from vitcompress.stages.images.sources import recorded_images


def said(context: Context) -> str:
    assert isinstance(context.console.file, io.StringIO)
    return context.console.file.getvalue()


@pytest.fixture
def doubled(digits_folder: Path, tmp_path: Path) -> Path:
    """Two held-out images copied into training (one of them twice), and a training image under another class too."""
    root = Path(shutil.copytree(digits_folder, tmp_path / "data"))
    shutil.copy(root / "val" / "digit-1" / "000.png", root / "train" / "digit-1" / "a.png")
    shutil.copy(root / "val" / "digit-1" / "000.png", root / "train" / "digit-1" / "b.png")
    (root / "train" / "digit-2" / "c.png").symlink_to(root / "val" / "digit-2" / "001.png")
    shutil.copy(root / "train" / "digit-3" / "000.png", root / "train" / "digit-4" / "d.png")
    return root


def test_they_are_told_by_default(doubled: Path, context: Context) -> None:
    record = run(DataConfig(source=str(doubled)), Inputs(), context)
    assert (record.train_images, record.val_images) == (84, 30)
    assert (record.duplicates, record.contradictory, record.dropped) == (2, 2, ())
    first, second = said(context).splitlines()
    assert "warning: 2 of 30 held-out images are in training too, byte for byte" in first
    assert "val/digit-1/000.png = train/digit-1/a.png, val/digit-2/001.png = train/digit-2/c.png)" in first
    assert "warning: 2 training images have a copy in another class" in second
    assert "(train/digit-3/000.png = train/digit-4/d.png)" in second


def test_they_can_be_an_error(doubled: Path, context: Context) -> None:
    with pytest.raises(DataError, match=r"2 of 30 held-out images are in training too, .*val/digit-1/000\.png = train"):
        run(DataConfig(source=str(doubled), on_duplicates="error"), Inputs(), context)


def test_they_can_be_left_out_of_training(doubled: Path, context: Context) -> None:
    record = run(DataConfig(source=str(doubled), on_duplicates="drop"), Inputs(), context)
    assert record.dropped == ("train/digit-1/a.png", "train/digit-1/b.png", "train/digit-2/c.png")
    assert (record.train_images, record.val_images, record.duplicates) == (81, 30, 2)
    assert "note: 3 images left out of training" in said(context)
    _, images = recorded_images(DataRecord.model_validate_json(record.model_dump_json()))
    assert (len(images.train), len(images.val)) == (81, 30)
    assert find_duplicates(images.files(doubled)).held_out == ()
    kept = run(DataConfig(source=str(doubled)), Inputs(), context)
    assert kept.identity() != record.identity()


def test_nobody_looks_where_they_are_allowed(doubled: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_size", lambda file: pytest.fail("a file was looked at"))
    record = run(DataConfig(source=str(doubled), on_duplicates="allow"), Inputs(), context)
    assert (record.duplicates, record.contradictory) == (None, None)
    assert said(context) == ""


def test_a_class_of_which_nothing_else_is_left_is_told(digits_folder: Path, tmp_path: Path, context: Context) -> None:
    root = Path(shutil.copytree(digits_folder, tmp_path / "data"))
    shutil.rmtree(root / "train" / "digit-5")
    shutil.copytree(root / "val" / "digit-5", root / "train" / "digit-5")
    with pytest.raises(DataError, match="no training image is left of class 'digit-5'"):
        run(DataConfig(source=str(root), on_duplicates="drop"), Inputs(), context)


def test_images_without_twins_are_silent(digits_folder: Path, context: Context) -> None:
    record = run(DataConfig(source=str(digits_folder)), Inputs(), context)
    assert (record.duplicates, record.contradictory) == (0, 0)
    assert said(context) == ""


def files(folder: Path, contents: dict[str, bytes]) -> list[File]:
    """``t0-...`` is a training file of class 0, ``v1-...`` a held-out one of class 1."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [File(folder / name, name, int(name[1]), name[0] == "v") for name in contents]


def test_files_of_one_size_and_one_end_are_told_apart(tmp_path: Path) -> None:
    end = b"e" * 5000
    given = files(tmp_path, {"t0-a": b"1" + end, "v0-b": b"2" + end, "t0-c": b"1" + end, "v0-d": b"1" + end})
    found = find_duplicates(given)
    assert [(one.name, other.name) for one, other in found.held_out] == [("v0-d", "t0-a")]
    assert [one.name for one, _ in found.training] == ["t0-a", "t0-c"]


def test_only_files_that_could_matter_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = duplicates._tail
    monkeypatch.setattr(duplicates, "_tail", lambda file: read.append(file.name) or real(file))
    given = files(tmp_path, {"t0-a": b"1", "t0-b": b"1", "v0-c": b"22", "v0-d": b"33", "t1-e": b"444", "t0-f": b"555"})
    assert find_duplicates(given) == duplicates.Duplicates((), (), ())
    assert sorted(read) == ["t0-f", "t1-e"]  # one size, two classes; twins within a class do no harm


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    given = files(tmp_path, {"t0-a": b"1", "v0-b": b"2"})
    (tmp_path / "v0-b").unlink()
    with pytest.raises(DataError, match="v0-b cannot be read"):
        find_duplicates(given)
