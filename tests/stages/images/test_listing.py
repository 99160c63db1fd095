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
    named = ("b/2.JPG", "b/1.png", "a/deep/er/3.webp", "a/0.jpeg", "b/photo.jfif")
    touch(tmp_path, *named, "a/notes.txt", "a/.hidden.png", "a/.cache/copy.png", ".git/x.png", "stray.png")
    (tmp_path / "c").symlink_to(touch(tmp_path / ".elsewhere", "1.png"))  # links are followed
    found = list_class_folder(tmp_path)
    assert found.classes == ("a", "b", "c")
    assert [file for file, _ in found.files] == [
        "a/0.jpeg",
        "a/deep/er/3.webp",
        "b/1.png",
        "b/2.JPG",
        "b/photo.jfif",
        "c/1.png",
    ]
    assert [label for _, label in found.files] == [0, 0, 1, 1, 1, 2]
    assert found.skipped == {".txt": 1}
    (tmp_path / "d").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match=r"class folders 'a' and 'd' in '.*' are the same folder; remove one link"):
        list_class_folder(tmp_path)


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
    assert (list_class_folder(tmp_path), tree_digest(tmp_path)) == plain


def test_a_link_loop_multiplies_nothing_and_leaves_the_digest_alone(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *(f"{label}/{name}.png" for label in "ab" for name in "12"), "a/deep/er/3.png")
    before, digest = list_class_folder(root).files, tree_digest(root)
    links = {"a/self": "a", "a/deep/er/up": "a/deep", "a/root": ".", "a/above": "..", "a/again": "a/deep"}
    for link, target in links.items():
        (root / link).symlink_to(root / target)
    after = list_class_folder(root).files
    assert len(after) == len(before) == 5
    assert {Path(file).name for file, label in after if label == 0} == {"1.png", "2.png", "3.png"}
    (root / "a" / "again").unlink()
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
    touch(tmp_path, *(f"train/{label}/1.png" for label in "abc"))
    (tmp_path / "val" / "c").mkdir(parents=True)
    with pytest.raises(DataError, match=r"held-out folder '.*val' has no images"):
        list_splits(str(tmp_path))
    touch(tmp_path, "val/a/1.png", "val/b/1.png")
    val = list_splits(str(tmp_path))[1]
    assert val is not None
    assert val.files == (("a/1.png", 0), ("b/1.png", 1))
    touch(tmp_path, "val/c/1.heic")
    with pytest.raises(DataError, match=r"without images in '.*val': 'c' \(1 \.heic\)"):
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
    touch(tmp_path, "other/1.png", "other/2.png")
    assert "other" in list_splits(str(tmp_path))[0].classes  # a class may have the name of a split


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("loose.png",), r"no class folders with images \(.*\.png"),
        (("only/1.png", "only/2.png"), r"has one class \('only'\); at least two"),
        (("a/1.png", "a/2.png", "b/1.png"), "class 'b' has one image, too few to hold one out"),
        (("train/a/1.png", "train/b/1.png"), "has train/ but no val/ or validation/"),
        (("val/a/1.png", "val/b/1.png"), "has val/ but no train/"),
        (("validation/a/1.png", "validation/b/1.png"), "has validation/ but no train/"),
        (
            ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/cats/1.png", "val/dogs/1.png"),
            r"missing from '.*train': cats, dogs; add or remove them",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        list_splits(str(tmp_path))


@pytest.mark.parametrize("name", ["val", "validation"])
def test_own_splits_share_the_training_classes(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", f"{name}/c/1.png", f"{name}/a/9.png")
    train, val = list_splits(str(tmp_path))
    assert val is not None
    assert train.classes == val.classes == ("a", "b", "c")
    assert val.files == (("a/9.png", 0), ("c/1.png", 2))  # c keeps its index though b has no held-out image


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
    gone = str(tmp_path / "gone")
    for ask in (lambda: list_splits(gone), lambda: digest_of(DataConfig(source=gone))):
        with pytest.raises(DataError, match="gone' does not exist; give a folder of class folders with --data"):
            ask()


def test_a_source_without_a_folder_is_known_by_settings_reader_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("cat\ndog\n")
    config = DataConfig(source="wds/x", root="https://host/shards", labels=str(labels))
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"train_split": "a"},
        {"val_split": "a"},
        {"train_samples": 9},
        {"val_samples": 9},
        {"source": "wds/y"},
    )
    seen = [digest_of(config.model_copy(update=change)) for change in changes]
    labels.write_text("dog\ncat\n")
    seen.append(digest_of(config))
    for version in ("3.0", "3.1"):
        monkeypatch.setattr(listing, "version", {"webdataset": version, "datasets": "1"}.__getitem__)
        seen.append(digest_of(config))
    assert seen[-1] == digest_of(config)
    assert len(set(seen)) == len(seen)
    with pytest.raises(DataError, match=r"labels file '.*gone' cannot be read \(No such file.*check data.labels"):
        digest_of(DataConfig(source="hfds/x", labels=str(tmp_path / "gone")))
