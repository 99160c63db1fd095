"""A folder of class folders: what is listed, what is refused, and what its digest notices."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from vitcompress.core.errors import DataError
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import Images, data_digest, open_images
from vitcompress.stages.images.sources.folder import Folder
from vitcompress.stages.images.tree import tree_digest


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(os.fsencode(file))
    return root


def listed(root: Path) -> Images:
    return Folder().images(DataConfig(source=str(root)))


def keys(split) -> list[str]:
    return [key for key, _ in split.items]


def names(images: Images) -> set[str]:
    return {file.name for file in images.files()}


def test_the_listing_is_sorted_nested_and_of_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    found = ["a/0.jpeg", "a/deep/er/3.webp", "a/sub1/1.png", "a/sub2/1.png", "b/1.png", "b/2.JPG", "c/1.png"]
    touch(root, *reversed(found[:-1]), "a/notes.txt", "a/.hidden.png", "a/.cache/copy.png", ".git/x.png", "stray.png")
    (root / "c").symlink_to(touch(tmp_path / "elsewhere", "1.png"))  # links are followed
    images = listed(root)
    assert images.classes == ("a", "b", "c")
    assert images.train.items == list(zip(found, [0, 0, 0, 0, 1, 1, 2], strict=True))
    assert (images.val, images.skipped) == (None, {".txt": 1})
    digest, real_walk, real_iterdir = tree_digest(root), os.walk, Path.iterdir

    def reversed_walk(top, **keywords):
        for folder, folders, files in real_walk(top, **keywords):
            folders.reverse()
            yield folder, folders, files[::-1]

    monkeypatch.setattr(os, "walk", reversed_walk)
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(real_iterdir(self))))
    assert listed(root).train.items == images.train.items  # whatever the order on the disk
    assert tree_digest(root) == digest


def test_a_link_loop_multiplies_nothing_and_leaves_the_digest_alone(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *(f"{label}/{name}.png" for label in "ab" for name in "12"), "a/deep/er/3.png")
    before, digest = keys(listed(root).train), tree_digest(root)
    links = {"a/self": "a", "a/deep/er/up": "a/deep", "a/root": ".", "a/above": "..", "a/again": "a/deep"}
    for link, target in links.items():
        (root / link).symlink_to(root / target)
    assert len(keys(listed(root).train)) == len(before) == 5
    (root / "a" / "again").unlink()
    assert keys(listed(root).train) == before
    assert tree_digest(root) == digest
    (root / "b" / "more").symlink_to(touch(tmp_path / "elsewhere", "2.png"))
    assert tree_digest(root) != digest


def test_a_folder_that_cannot_be_read_and_a_link_to_nothing_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.png", "b/deep/1.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.png cannot be looked at"):
        tree_digest(tmp_path)
    (tmp_path / "a" / "gone.png").unlink()
    real = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    for ask in (listed, tree_digest):
        with pytest.raises(DataError, match=r"folder .*deep cannot be listed \(Permission denied\)"):
            ask(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("loose.png",), r"no class folders with images \(.*\.png"),
        (("only/1.png", "only/2.png"), r"has one class \('only'\); at least two"),
        (("a/1.png", "a/2.png", "b/1.png"), "class 'b' has one image, too few to hold one out"),
        (
            ("a/1.png", "a/2.png", "b/1.avif", "c/.hid.png"),
            r"without images in '.*': 'b', 'c'\. Images are \.bmp",
        ),
        (("a/1.png", "new\nline/1.png"), r"'new\\nline' in '.*' has a line break"),
        (("a/1.png", "b\udcff/1.png"), "is not UTF-8; rename it"),
        (
            ("Train/a/1.png", "VAL/a/1.png", "test/a/1.png"),
            "named like splits, .*: 'T.*; name splits exactly",
        ),
        (("train/a/1.png", "train/b/1.png"), "has train/ but no val/ or validation/"),
        (("validation/a/1.png", "validation/b/1.png"), "has validation/ but no train/"),
        (("train/a/1.png", "train/b/1.png", "val/a/.hid.png"), r"held-out folder '.*val' has no images"),
        (
            ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/cats/1.png", "val/dogs/1.png"),
            r"missing from '.*train': cats, dogs; add or remove them",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        open_images(DataConfig(source=str(tmp_path)))


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_class_without_held_out_images_keeps_its_number(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", f"{name}/c/1.png", f"{name}/a/9.png")
    images = listed(touch(tmp_path, f"{name}/b/1.heic"))
    assert images.classes == ("a", "b", "c")
    assert images.val.items == [("a/9.png", 0), ("c/1.png", 2)]
    assert images.skipped == {".heic": 1}
    assert names(images) >= {"train/a/1.png", f"{name}/c/1.png"}


def test_a_folder_without_splits_is_split_by_class(digits_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(digits_folder / "train", tmp_path / "copy")
    config = DataConfig(source=str(root), val_fraction=0.25)
    images = open_images(config)
    assert (len(images.train), len(images.val)) == (60, 20)
    assert set(Counter(label for _, label in images.val.items).values()) == {2}
    assert not set(keys(images.train)) & set(keys(images.val))
    assert keys(open_images(config).val) == keys(images.val)
    with pytest.raises(DataError, match="80 images of 10 classes are too few to hold out 79"):
        open_images(DataConfig(source=str(root), val_fraction=0.99))
    left_out = open_images(config, {"digit-0/000.png"})
    (root / "digit-0" / "000.png").unlink()  # one that cannot be used is as if it were not there
    removed = open_images(config)
    assert (keys(left_out.train), keys(left_out.val)) == (keys(removed.train), keys(removed.val))


def test_files_are_left_out_of_both_splits_or_of_training(digits_folder: Path) -> None:
    config = DataConfig(source=str(digits_folder))
    every = open_images(config)
    assert sorted(file.path for file in every.files()) == sorted(digits_folder.rglob("*.png"))
    assert all(digits_folder / file.name == file.path for file in every.files())
    assert all(file.path.parent.name == f"digit-{file.label}" for file in every.files())
    assert sum(file.held_out for file in every.files()) == 30
    left_out = {"train/digit-1/003.png", "val/digit-4/001.png"}
    images = open_images(config, left_out, {"train/digit-2/000.png", "val/digit-3/000.png"})
    assert names(every) - names(images) == {*left_out, "train/digit-2/000.png"}
    gone = {f"train/digit-6/{index:03d}.png" for index in range(8)}
    for changes in ((gone, set()), (set(), gone)):
        with pytest.raises(DataError, match="no training image is left of class 'digit-6' in"):
            open_images(config, *changes)


def digest_of(config: DataConfig) -> str:
    data_digest.cache_clear()
    return data_digest(config)


def test_the_digest_changes_with_any_file_and_only_then(digits_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(digits_folder, tmp_path / "copy")
    config = DataConfig(source=str(root))
    first = digest_of(config)
    touch(root, ".DS_Store", "train/.cache/x.png")  # hidden
    assert digest_of(config) == digest_of(config.model_copy(update={"val_fraction": 0.4})) == first
    changed = root / "train" / "digit-3" / "000.png"
    seen = {first}
    times = changed.stat()
    changed.write_bytes(changed.read_bytes() + b"x")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))  # another size alone
    seen.add(digest_of(config))
    os.utime(changed, ns=(1, 1))  # another time alone
    seen.add(digest_of(config))
    changed.rename(changed.with_name("moved.png"))
    seen.add(digest_of(config))
    changed.with_name("moved.png").unlink()
    seen.add(digest_of(config))
    assert len(seen) == 5
    gone = DataConfig(source=str(tmp_path / "gone"))
    for ask in (open_images, digest_of):
        with pytest.raises(DataError, match="gone' does not exist; give a folder of class folders"):
            ask(gone)
