"""Packs: the same images as their source, whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import in_process
from nasty_images import noise, write_nasty
from PIL import Image
from small_run import NO_AUGMENT, SPEC, STRONG_AUGMENT, data_record

import vitcompress as vc
from vitcompress.core.context import Context
from vitcompress.core.errors import CompressError, DataError, UsageError
from vitcompress.stages.images import packing
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.held_out import image_names, images_digest
from vitcompress.stages.images.loaders import train_loader, train_views
from vitcompress.stages.images.packing import write_pack
from vitcompress.stages.images.sources import Images, StreamSplit, data_digest, open_images, recorded_images, source_of


@pytest.fixture(scope="module")
def packed(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, not to be changed; copy it for that."""
    return vc.pack(digits_folder, tmp_path_factory.mktemp("packs") / "digits", progress=False).folder


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "copied")


def images_of(folder: Path) -> Images:
    return open_images(DataConfig(source=str(folder)))


def loaded(split: Any, augment: Any, workers: int = 0) -> torch.Tensor:
    loader = train_loader(train_views(split, augment, SPEC, 3), batch_size=16, seed=3, workers=workers)
    return torch.cat([images for images, _ in loader])


@pytest.mark.parametrize("backend", ["pillow", "torchvision"])
def test_a_pack_trains_on_the_same_views_as_its_source(packed: Path, digits_folder: Path, backend: str) -> None:
    augment = STRONG_AUGMENT.model_copy(update={"backend": backend})
    ours, theirs = images_of(packed), images_of(digits_folder)
    assert ours.classes == theirs.classes
    assert ours.train.labels == theirs.train.labels
    wanted = loaded(theirs.train, augment)
    assert torch.equal(loaded(ours.train, augment), wanted)
    assert torch.equal(loaded(ours.train, augment, workers=2), wanted)


def test_a_pack_is_judged_by_the_same_files(packed: Path, digits_folder: Path) -> None:
    found = []
    for folder in (packed, digits_folder):
        images = images_of(folder)
        labels = np.array(images.val.labels)
        found.append((image_names(images.val, 30), images_digest(images.val, images.classes, labels), images.split))
    assert found[0] == found[1]


def test_class_folders_are_held_out_of_as_in_a_run(digits_folder: Path, tmp_path: Path) -> None:
    source = digits_folder / "train"
    settings = {"data.split_seed": 3, "data.val_fraction": 0.3}
    folder = vc.pack(source, tmp_path / "pack", settings=settings, progress=False).folder
    theirs = open_images(DataConfig(source=str(source), split_seed=3, val_fraction=0.3))
    ours = images_of(folder)
    assert [key for key, _ in ours.val.items] == [key for key, _ in theirs.val.items]
    assert ours.split == theirs.split
    assert torch.equal(loaded(ours.train, NO_AUGMENT), loaded(theirs.train, NO_AUGMENT))


def test_every_kind_of_file_is_packed_as_it_is_read(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a"):
        write_nasty(tmp_path / "source" / name)
        shutil.copy(tmp_path / "source" / name / "mode-L.png", tmp_path / "source" / name / os.fsdecode(b"\xff\n.png"))
    folder = vc.pack(
        tmp_path / "source",
        tmp_path / "pack",
        size=None,
        settings={"data.on_duplicates": "allow"},
        progress=False,
    ).folder
    ours, theirs = images_of(folder), images_of(tmp_path / "source")
    for one, other in ((ours.train, theirs.train), (ours.val, theirs.val)):
        assert len(one) == len(other)
        for index in range(len(one)):
            np.testing.assert_array_equal(np.asarray(one[index][0]), np.asarray(other[index][0]))


def test_training_images_are_scaled_down_never_up_and_held_out_ones_kept(tmp_path: Path) -> None:
    sizes = [(200, 100), (90, 300), (40, 30), (64, 64)]
    for place, start in (("train/a", 0), ("train/b", 10), ("val/a", 20), ("val/b", 30)):
        (tmp_path / "source" / place).mkdir(parents=True)
        for number, size in enumerate(sizes):
            noise(*size, seed=start + number).save(tmp_path / "source" / place / f"{number}.png")
    told = in_process("data", "pack", str(tmp_path / "source"), str(tmp_path / "pack"), "--size", "50")
    assert told.code == 0, told.err
    images = images_of(tmp_path / "pack")
    assert [images.train[index][0].size for index in range(4)] == [(100, 50), (50, 166), (40, 30), (50, 50)]
    assert [images.val[index][0].size for index in range(4)] == sizes
    assert "training 8 images" in told.out
    assert str(tmp_path / "pack") in told.out


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, tuple[Any, str]] = {
    "a bit of the index": (lambda folder: flip(folder / "index.npy"), "index.npy is not the file that was written"),
    "pixels that end early": (lambda folder: cut(folder / "pixels.bin"), "pixels.bin has"),
    "no pixels": (lambda folder: (folder / "pixels.bin").unlink(), "pixels.bin cannot be looked at"),
    "a held-out file": (lambda folder: cut(next((folder / "val").rglob("*.png"))), "were written"),
    "the manifest": (lambda folder: cut(folder / "pack.json") or cut(folder / "pack.json"), "damaged or no JSON"),
    "another version": (
        lambda folder: (folder / "pack.json").write_text(json.dumps({"format": 99})),
        "reads images otherwise",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told_in_one_sentence_before_training(what: str, copied: Path) -> None:
    damage, sentence = DAMAGE[what]
    damage(copied)
    with pytest.raises(CompressError, match=sentence) as caught:
        images_of(copied)
    assert str(copied) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("backend", ["pillow", "torchvision"])
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_pixels_are_named_by_whoever_reads_them(copied: Path, backend: str, workers: int) -> None:
    split = images_of(copied).train
    flip(copied / "pixels.bin")
    with pytest.raises(DataError, match=r"image 40 \(train/digit-5/000.png\) has other pixels than were written"):
        loaded(split, NO_AUGMENT.model_copy(update={"backend": backend}), workers)


def test_a_run_opens_a_pack_as_its_data(packed: Path, context: Context) -> None:
    record = data_record(str(packed), context)
    assert (record.train_images, record.val_images) == (80, 30)
    assert "when they were packed" in record.checked
    _, images = recorded_images(record)
    assert len(images.train) == 80


def test_another_pack_at_the_same_place_is_other_data(copied: Path, digits_folder: Path) -> None:
    config = DataConfig(source=str(copied))
    assert source_of(config.source).name == "pack"
    before = data_digest.__wrapped__(config)
    assert data_digest.__wrapped__(config) == before
    shutil.rmtree(copied)
    vc.pack(digits_folder, copied, size=20, progress=False)
    assert data_digest.__wrapped__(config) != before


def test_what_is_interrupted_leaves_nothing(digits_folder: Path, tmp_path: Path) -> None:
    calls = iter(range(30))

    def stop() -> None:
        if next(calls) == 20:
            raise KeyboardInterrupt

    output = tmp_path / "pack"
    with pytest.raises(KeyboardInterrupt):
        write_pack(images_of(digits_folder), output, source="a test", size=None, advance=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".pack.draft" / "val").mkdir(parents=True)  # of a call that was killed
    (tmp_path / ".pack.draft" / "val" / "left.png").write_bytes(b"half")
    write_pack(images_of(digits_folder), output, source="a test", size=None)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]
    assert len(list((output / "val").rglob("*.png"))) == 30


def test_images_of_no_files_are_packed_too(tmp_path: Path) -> None:
    train = StreamSplit([(Image.new("RGB", (20, 10), (n, 0, 0)), n % 2) for n in range(10)], 10, 2)
    val = StreamSplit([(Image.new("RGB", (20, 10), (0, n, 0)), n % 2) for n in range(4)], 4, 2)
    write_pack(Images(("a", "b"), train, val, "a test"), tmp_path / "pack", source="a stream", size=5)
    found = images_of(tmp_path / "pack")
    assert found.train.labels == [0, 1] * 5
    assert found.train[7][0].size == (10, 5)
    assert found.train[7][0].getpixel((0, 0)) == (7, 0, 0)
    assert [found.val[n][0].getpixel((0, 0)) for n in range(4)] == [(0, n, 0) for n in range(4)]
    digits = vc.pack("digits", tmp_path / "digits", progress=False)
    assert (digits.images, digits.held_out) == (1438, 359)


def test_what_cannot_be_packed_is_refused_in_one_sentence(
    digits_folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is there already; give another folder"):
        vc.pack(digits_folder, packed, progress=False)
    with pytest.raises(UsageError, match="is inside the data folder"):
        vc.pack(packed, packed / "again", progress=False)
    with pytest.raises(UsageError, match="by the settings of data alone, and 'distill' was given"):
        vc.pack(digits_folder, tmp_path / "a", settings={"distill.epochs": 3}, progress=False)
    with pytest.raises(UsageError, match="size is 0"):
        vc.pack(digits_folder, tmp_path / "a", size=0, progress=False)
    assert in_process("data", "pack", "digits", str(tmp_path / "a"), "--full", "--size", "8").code == 2
    room = packing.bytes_needed(images_of(digits_folder), None)
    assert room is not None
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, room - 1))
    with pytest.raises(UsageError, match=r"would take about .* and its disk has .* free"):
        vc.pack(digits_folder, tmp_path / "a", size=None, progress=False)
    assert list(tmp_path.iterdir()) == []
