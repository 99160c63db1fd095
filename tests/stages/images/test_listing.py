from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from vitcompress.core.errors import DataError
from vitcompress.stages.images import listing
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.listing import data_digest, kind_of, list_class_folder, list_splits, tree_digest


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    return root


def test_kinds_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind_of("digits") == "digits"
    assert kind_of("hfds/cifar10") == kind_of("WDS/x") == kind_of("torch/image_folder") == "timm"
    assert kind_of("photos/cats") == kind_of("/data/x") == "folder"
    touch(tmp_path, "torch/a/1.png")
    monkeypatch.chdir(tmp_path)
    assert kind_of("torch") == "folder"  # what is on disk comes first


def test_listing_is_sorted_nested_and_of_images_only(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/2.JPG",
        "b/1.png",
        "a/deep/er/3.webp",
        "a/0.jpeg",
        "a/notes.txt",
        "a/.hidden.png",
        "a/.cache/copy.png",
        ".git/x.png",
        "b/photo.jfif",
        "stray.png",
    )
    found = list_class_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert found.files == (
        ("a/0.jpeg", 0),
        ("a/deep/er/3.webp", 0),
        ("b/1.png", 1),
        ("b/2.JPG", 1),
        ("b/photo.jfif", 1),
    )
    assert found.skipped == {".txt": 1}


def test_the_order_does_not_depend_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{label}/{name}.png" for label in "cab" for name in "zyx"), "a/sub2/1.png", "a/sub1/1.png")
    plain = list_class_folder(tmp_path), tree_digest(tmp_path)
    real_walk, real_iterdir = os.walk, Path.iterdir

    def reversed_walk(top, **keywords):
        for folder, folders, names in real_walk(top, **keywords):
            folders.reverse()
            yield folder, folders, names[::-1]

    monkeypatch.setattr(os, "walk", reversed_walk)
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(real_iterdir(self))))
    assert list_class_folder(tmp_path) == plain[0]
    assert list_class_folder(tmp_path).classes == ("a", "b", "c")


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.png")
    touch(tmp_path / "data", "a/1.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    assert list_class_folder(tmp_path / "data").files == (("a/1.png", 0), ("b/1.png", 1))


def test_a_link_loop_multiplies_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "data", *(f"{label}/{name}.png" for label in "ab" for name in "12"), "a/deep/er/3.png")
    before = list_class_folder(tmp_path / "data").files
    for link, target in (
        ("a/self", "a"),
        ("a/deep/er/up", "a/deep"),
        ("a/root", "."),
        ("a/above", ".."),
        ("a/again", "a/deep"),
    ):
        (tmp_path / "data" / link).symlink_to(tmp_path / "data" / target)
    after = list_class_folder(tmp_path / "data").files
    assert len(after) == len(before) == 5
    assert {Path(file).name for file, label in after if label == 0} == {"1.png", "2.png", "3.png"}


def test_a_link_loop_leaves_the_digest_alone(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a/1.png", "b/1.png")
    before = tree_digest(root)
    (root / "b" / "loop").symlink_to(root)
    (root / "b" / "above").symlink_to(tmp_path)
    (root / "b" / "self").symlink_to(root / "b")
    assert tree_digest(root) == before
    touch(tmp_path / "elsewhere", "2.png")
    (root / "b" / "more").symlink_to(tmp_path / "elsewhere")
    assert tree_digest(root) != before


def test_one_folder_cannot_be_two_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match=r"class folders 'a' and 'c' in '.*' are the same folder; remove one link"):
        list_class_folder(tmp_path)


def test_a_class_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.png", "b/deep/1.png")
    real = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    for ask in (list_class_folder, tree_digest):
        with pytest.raises(DataError, match=r"folder .*deep cannot be listed \(Permission denied\)"):
            ask(tmp_path)


def test_a_class_without_usable_images_is_told_and_not_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.avif", "b/deep/2.AVIF", "b/notes", "c/.hidden.png")
    with pytest.raises(
        DataError, match=r"without images in '.*': 'b' \(2 \.avif, 1 without suffix\), 'c' \(empty\)\. Im"
    ):
        list_class_folder(tmp_path)
    for index in range(9):
        (tmp_path / f"d{index}").mkdir()
    with pytest.raises(DataError, match=r"'d5' \(empty\) and 3 more\. Images are \.bmp, .*hide it with a leading dot"):
        list_class_folder(tmp_path)


def test_a_held_out_class_may_be_empty_but_not_of_other_files(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{label}/1.png" for label in "abc"), "val/a/1.png", "val/b/1.png")
    (tmp_path / "val" / "c").mkdir()
    val = list_splits(str(tmp_path))[1]
    assert val is not None
    assert val.files == (("a/1.png", 0), ("b/1.png", 1))
    touch(tmp_path, "val/c/1.heic")
    with pytest.raises(DataError, match=r"without images in '.*val': 'c' \(1 \.heic\)"):
        list_splits(str(tmp_path))


def test_a_held_out_folder_of_empty_classes_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png")
    (tmp_path / "val" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"held-out folder '.*val' has no images"):
        list_splits(str(tmp_path))


@pytest.mark.parametrize(
    "names", [("Training", "Validation"), ("Train", "VAL", "test"), ("training", "valid"), ("test", "training")]
)
def test_folders_named_like_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *(f"{name}/{label}/{n}.png" for name in names for label in "ab" for n in "12"))
    with pytest.raises(
        DataError, match=r"named like splits, .*: 'T?.*; name splits exactly train/ and val/ \(or valid"
    ):
        list_splits(str(tmp_path))


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{n}.png" for label in ("Test", "other") for n in "12"))
    assert list_splits(str(tmp_path))[0].classes == ("Test", "other")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    for ask in (lambda: list_splits(gone), lambda: data_digest(DataConfig(source=gone))):
        with pytest.raises(DataError, match="gone' does not exist; give a folder of class folders with --data"):
            ask()


def test_a_folder_without_images_says_what_counts_as_one(tmp_path: Path) -> None:
    touch(tmp_path, "loose.png")
    with pytest.raises(DataError, match=r"no class folders with images \(.*\.png"):
        list_splits(str(tmp_path))


def test_one_class_cannot_be_classified(tmp_path: Path) -> None:
    touch(tmp_path, "only/1.png", "only/2.png")
    with pytest.raises(DataError, match=r"has one class \('only'\); at least two"):
        list_splits(str(tmp_path))


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png")
    with pytest.raises(DataError, match="class 'b' has one image, too few to hold one out"):
        list_splits(str(tmp_path))


@pytest.mark.parametrize(
    ("have", "lack"), [("train", "val/ or validation/"), ("val", "train/"), ("validation", "train/")]
)
def test_half_a_split_is_told(tmp_path: Path, have: str, lack: str) -> None:
    touch(tmp_path, f"{have}/a/1.png", f"{have}/b/1.png")
    with pytest.raises(DataError, match=f"has {have}/ but no {lack}"):
        list_splits(str(tmp_path))


@pytest.mark.parametrize("name", ["val", "validation"])
def test_own_splits_share_the_training_classes(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", f"{name}/c/1.png", f"{name}/a/9.png")
    train, val = list_splits(str(tmp_path))
    assert val is not None
    assert train.classes == val.classes == ("a", "b", "c")
    assert val.files == (("a/9.png", 0), ("c/1.png", 2))  # c keeps its index though b has no held-out image


def test_a_held_out_class_that_training_does_not_have_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/cats/1.png", "val/dogs/1.png")
    with pytest.raises(DataError, match=r"missing from '.*train': cats, dogs; add or remove them"):
        list_splits(str(tmp_path))


def test_the_digest_changes_with_any_file_and_only_then(digits_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits_folder, root)
    config = DataConfig(source=str(root))

    def digest() -> str:
        data_digest.cache_clear()
        return data_digest(config)

    first = digest()
    assert digest() == first
    assert data_digest(config.model_copy(update={"val_fraction": 0.4})) == first
    changed = root / "train" / "digit-3" / "000.png"
    seen = {first}
    times = changed.stat()
    changed.write_bytes(changed.read_bytes() + b"x")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))  # another size alone
    seen.add(digest())
    os.utime(changed, ns=(1, 1))  # another time alone
    seen.add(digest())
    changed.rename(changed.with_name("moved.png"))
    seen.add(digest())
    changed.with_name("moved.png").unlink()
    seen.add(digest())
    assert len(seen) == 5
    data_digest.cache_clear()


def test_a_labels_file_counts_and_a_missing_one_is_told(tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("cat\ndog\n")
    config = DataConfig(source="hfds/x", labels=str(labels))
    first = data_digest(config)
    labels.write_text("dog\ncat\n")
    data_digest.cache_clear()
    assert data_digest(config) != first
    with pytest.raises(DataError, match=r"labels file '.*gone' cannot be read \(No such file.*check data.labels"):
        data_digest(DataConfig(source="hfds/x", labels=str(tmp_path / "gone")))


@pytest.mark.parametrize(
    "change", [{"train_split": "a"}, {"val_split": "a"}, {"train_samples": 9}, {"val_samples": 9}, {"source": "wds/y"}]
)
def test_a_source_without_a_folder_is_known_by_its_settings(change: dict[str, Any]) -> None:
    config = DataConfig(source="wds/x", root="https://host/shards")
    assert data_digest(config.model_copy(update=change)) != data_digest(config)


def test_a_source_without_a_folder_is_known_by_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(version: str) -> str:
        monkeypatch.setattr(listing, "version", {"datasets": version, "torchvision": "1"}.__getitem__)
        data_digest.cache_clear()
        return data_digest(DataConfig(source="hfds/x"))

    assert digest("3.0") == digest("3.0") != digest("3.1")
    data_digest.cache_clear()


def test_hidden_files_do_not_change_the_digest(digits_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits_folder, root)
    before = tree_digest(root)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    (root / "train" / ".cache" / "x.png").write_bytes(b"x")
    assert tree_digest(root) == before


def test_a_link_to_nothing_is_named(digits_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(digits_folder, root)
    (root / "train" / "digit-3" / "gone.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.png cannot be looked at"):
        tree_digest(root)
