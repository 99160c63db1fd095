"""Images listed in a file: formats, columns, classes, splits, groups, weights, and rows that cannot be used."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_run import LIGHT_AUGMENT, SPEC, said

from vitcompress.core.context import Context
from vitcompress.core.errors import CompressError, DataError
from vitcompress.pipeline.config import requested_config
from vitcompress.stages.data import stage as data_stage
from vitcompress.stages.images.config import ColumnsConfig, DataConfig
from vitcompress.stages.images.grouping import held_groups
from vitcompress.stages.images.loaders import ViewSampler, train_loader, train_views
from vitcompress.stages.images.packing import write_pack
from vitcompress.stages.images.sources import Images, data_digest, open_images, recorded_images
from vitcompress.stages.teacher.tuning import hold_out

CLASSES = ("9", "10", "11")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of 30 images, by whose red value they are known."""
    (tmp_path / "a b").mkdir()
    for number in range(30):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name(number))
    return tmp_path


def name(number: int) -> str:
    return f"a b/{number:02d}.png"


def rows(**columns: Any) -> list[dict[str, Any]]:
    """Thirty rows of ``CLASSES`` in turn; ``columns`` are functions of the number, and replace or add cells."""
    made: dict[str, Any] = {"path": name, "label": lambda number: CLASSES[number % 3], **columns}
    return [{key: make(number) for key, make in made.items()} for number in range(30)]


def write(file: Path, table: list[dict[str, Any]]) -> str:
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, table)))
    elif file.suffix == ".parquet":
        pytest.importorskip("datasets").Dataset.from_list(table).to_parquet(file)
    else:
        with file.open("w", newline="", encoding="utf-8-sig") as out:
            writer = csv.DictWriter(out, [*table[0]], delimiter={".tsv": "\t", ".csv": ";"}[file.suffix])
            writer.writeheader()
            writer.writerows(table)
    return str(file)


def opened(root: Path, table: list[dict[str, Any]], **settings: Any) -> Images:
    return open_images(DataConfig(source=write(root / "images.jsonl", table), **settings))


def labels_of(images: Images) -> dict[Any, Any]:
    return dict((*images.train.items, *images.val.items))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_manifest_of_any_format(root: Path, suffix: str) -> None:
    kind, half = (str if suffix == ".tsv" else int), (lambda number: number / 2)
    label, split = (lambda number: kind(CLASSES[number % 3])), (lambda number: "Val" if number > 23 else "train")
    images = open_images(DataConfig(source=write(root / f"x{suffix}", rows(label=label, split=split, weight=half))))
    assert images.classes == CLASSES  # by number, not by letter
    assert images.train.items == [(name(number), number % 3) for number in range(24)]
    assert images.val.items == [(name(number), number % 3) for number in range(24, 30)]
    assert images.train.weights.tolist() == [number / 2 for number in range(24)]
    assert [images.val[2][0].getpixel((0, 0)), images.train[7][1]] == [(26, 0, 0), 1]


def test_every_row_that_cannot_be_used_is_named_at_once(root: Path, context: Context) -> None:
    good = ["path,label,weight", *(f"{name(number)},{number % 2},1" for number in range(6))]
    bad = ["../x.png,0,1", "/etc/passwd,0,1", ",0,1", f"{name(7)},nan,1", f"{name(8)},0,-1", f"{name(9)},0,many"]
    bad += [f"{name(10)},0", f"{name(0)},1,1", "gone.png,0,1", *["gone too.png,0,1"] * 7]
    file = root / "images.csv"
    file.write_text("\n".join([*good, *bad]))
    with pytest.raises(DataError, match="16 rows of manifest") as caught:
        data_digest(DataConfig(source=str(file)))
    told = ["8 (../x.png), 9 (/etc/passwd)", "10 ()", "11 (nan)", "12 (-1), 13 (many)", "14 ()", "15 (a b/00.png)"]
    told += ["16 (gone.png), 17 (gone too.png), 18 (gone too.png), 19 (gone too.png), 20 (gone too.png) and 3 more"]
    assert [line.partition(": row ")[2] for line in str(caught.value).split("\n")[1:]] == told
    file.write_text("\n".join([*good, "gone.png,0,1"]))
    record = data_stage.run(DataConfig(source=str(file), on_bad_image="skip"), data_stage.Inputs(), context)
    assert (record.left_out, record.train_images + record.val_images) == (("gone.png",), 6)
    assert len(recorded_images(record)[1].train) == record.train_images
    file.write_text(f"path,label\n{root}/a b/../a b/{name(1)[4:]},0\n")  # inside of data.root, if not as it is written
    with pytest.raises(DataError, match="has one class"):
        open_images(DataConfig(source=str(file), root=str(root / "a b")))


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("path,file,label", {}, "2 columns that may be the image; its columns are 'path', 'file', 'label'"),
        ("path,what,x", {}, "no columns that may be the label; its columns are 'path', 'what', 'x'"),
        ("path,label,x", {"label": "lable"}, "no column 'lable'; its columns are 'path', 'label', 'x'"),
        ("path,label,path", {}, "2 columns that may be the image"),
        ("path,label,split", {}, "has the values 'c', and should have train, val and test"),
        ("path,label,split", {"split": False}, "has one class"),
        ("", {}, "no columns"),
    ],
)
def test_columns_are_found_or_asked_for(root: Path, header: str, columns: dict[str, Any], message: str) -> None:
    (root / "images.csv").write_text(f"{header}\n{name(1)},b,c\n{name(2)},b,c\n")
    with pytest.raises(DataError, match=message):
        open_images(DataConfig(source=str(root / "images.csv"), columns=ColumnsConfig(**columns)))


def test_settings_that_are_not_read_are_refused() -> None:
    sets = ("data.columns.group=patient", "data.label_separator=+")
    with pytest.raises(CompressError, match=r"has no columns(.|\n)*data\.label_separator is for images of several"):
        requested_config(teacher="cait_s24", student="deit_tiny", layers=(), data="/photos", sets=sets)


def test_classes_of_a_file_and_images_of_no_class(root: Path, context: Context) -> None:
    table, names = rows(label=lambda number: "" if number < 9 else number % 3), root / "names.txt"
    images = opened(root, table)
    assert sorted(images.train.labels)[:9] == [-1] * 9
    assert min(images.val.labels) == 0
    record = data_stage.run(DataConfig(source=str(root / "images.jsonl")), data_stage.Inputs(), context)
    assert (record.unlabelled, record.classes) == (9, ("0", "1", "2"))
    assert record.read in said(context)
    names.write_text("cat\ndog\nape\nbee\n")
    by_place = opened(root, table, labels=str(names))
    assert (by_place.classes, labels_of(by_place)) == (("cat", "dog", "ape", "bee"), labels_of(images))
    with pytest.raises(DataError, match=r"10 rows(.|\n)*none of the names of the classes.*row 3 \(ant\), 6"):
        opened(root, rows(label=lambda number: ("dog", "cat", "ant")[number % 3]), labels=str(names))
    with pytest.raises(DataError, match=r"a cell is of no kind that can be used: row 1 .*and 25 more"):
        opened(root, rows(label=lambda _: {"a": 1}))
    with pytest.raises(DataError, match=r"data\.labels cannot be read \(.*No such file"):
        opened(root, table, labels=str(root / "gone.txt"))
    for text, words in (("", "which is empty"), ("cat\ndog\ncat\n", "names 'cat' more than once")):
        names.write_text(text)
        with pytest.raises(DataError, match=words):
            opened(root, table, labels=str(names))
    with pytest.raises(DataError, match=r"each of the classes 'x', 'y' has one image"):
        opened(root, rows(label=lambda number: {0: "x", 1: "y"}.get(number, "z")))


@pytest.mark.parametrize("how", ["list", "json", "|", ";", "+", "columns"])
def test_several_classes_an_image(root: Path, how: str) -> None:
    own = [[one for one, every in (("a", 2), ("b", 3), ("c", 5)) if number % every == 0] for number in range(30)]
    forms: dict[str, Any] = {"list": own.__getitem__, "json": lambda number: json.dumps(own[number])}
    table = rows(label=forms.get(how, lambda number: how.join(own[number])))
    settings: dict[str, Any] = {"label_separator": "+"} if how == "+" else {}
    if how == "columns":
        table = [{"path": name(number), **{one: int(one in own[number]) for one in "cba"}} for number in range(30)]
        settings = {"columns": ColumnsConfig(label=("a", "b", "c"))}
    images = opened(root, table, task="multilabel", **settings)
    assert labels_of(images) == {name(number): tuple("abc".index(one) for one in own[number]) for number in range(30)}
    assert (images.multilabel, images.train.classes, images.classes) == (True, 3, ("a", "b", "c"))
    assert {*chain(*images.val.labels)} == {0, 1, 2}
    assert () in images.val.labels
    if how not in ";+":
        with pytest.raises(DataError, match="have several labels each; give --task multilabel"):
            opened(root, table, **settings)


def test_a_split_column(root: Path) -> None:
    numbers, parts = [*range(30)], rows(split=lambda number: ("train", "val", "test")[number // 10])
    assert opened(root, parts).val.items == [(name(number), number % 3) for number in numbers[10:20]]
    assert "10 rows with 'test'" in opened(root, parts).split
    assert [key for key, _ in opened(root, parts, val_split="test").val.items] == [*map(name, numbers[20:])]
    two: Any = {"split": lambda number: "train" if number < 20 else "test"}
    blank = opened(root, rows(**two, label=lambda number: "" if number == 29 else number % 3))
    assert [key for key, _ in blank.val.items] == [*map(name, numbers[20:29])]
    with pytest.raises(DataError, match=r"3 groups of manifest .* are in training and held out"):
        opened(root, rows(**two, group=lambda number: number % 3))
    unseen = rows(**two, label=lambda number: "xy"[number < 20 or number % 2])
    with pytest.raises(DataError, match=r"held-out rows .* that no training row has: 'x'"):
        opened(root, unseen)
    assert {*opened(root, unseen, task="embedding").val.labels} == {0, 1}
    with pytest.raises(DataError, match=r"no class; .*data\.labelled=false"):
        opened(root, rows(label=lambda _: ""), task="embedding")


def test_groups_stay_together(root: Path) -> None:
    images = opened(root, rows(group=lambda number: number // 4))
    parts = [{int(key[4:6]) // 4 for key, _ in split.items} for split in (images.train, images.val)]
    assert not parts[0] & parts[1]
    assert {*images.val.labels} == {0, 1, 2}
    some = opened(root, rows(group=lambda number: number // 4, label=lambda n: "" if n % 4 == 3 else n % 3))
    assert f"; {30 - len(some.train) - len(some.val)} of these groups have no class" in some.split
    with pytest.raises(DataError, match="class '10' has too few groups to hold one out"):
        opened(root, rows(group=lambda number: 0 if number % 3 == 1 else number))
    random = np.random.default_rng(0)
    classes, groups = random.choice(20, 4000, p=np.arange(1, 21) / 210), random.integers(0, 500, 4000)
    for seed in range(3):
        held = held_groups([(label,) for label in classes.tolist()], groups, 0.2, seed)
        assert not np.intersect1d(groups[held], groups[~held]).size
        shares = np.bincount(classes[held], minlength=20) / np.bincount(classes)
        assert shares.min() > 0
        assert np.abs(shares[5:] - 0.2).max() < 0.06
        tuning = hold_out(classes, 0.1, seed, groups)
        assert not np.intersect1d(groups[tuning], np.delete(groups, tuning)).size


def test_images_are_drawn_by_weight(root: Path) -> None:
    def drawn(weights: Any, epoch: int, **settings: int) -> list[Any]:
        return list(ViewSampler(30, 1, epoch=epoch, weights=weights, **settings))

    weights, wanted = np.arange(30.0), np.arange(30) * 30 / 435
    counts = np.array([np.bincount([key.index for key in drawn(weights, at)], minlength=30) for at in range(200)])
    assert np.all((counts == np.floor(wanted)) | (counts == np.floor(wanted) + 1))
    np.testing.assert_allclose(counts.mean(0), wanted, atol=0.12)
    keys = [(key.index, key.view) for epoch in range(3) for key in drawn(weights, epoch, repeats=2)]
    assert len({*keys}) == 90  # no view is seen twice
    assert max(key.view for key in drawn(weights, 5, views=4)) == 3
    assert sorted(key.index for key in drawn(np.full(30, 0.5), 3)) == [*range(30)]
    with pytest.raises(DataError, match=r"every training image of .* has the weight 0"):
        opened(root, rows(weight=lambda _: 0))
    table = rows(label=lambda number: "rare" if number % 10 == 0 else "usual", weight=lambda number: 1 + number % 2)
    split = opened(root, table, sampling="balanced").train
    views = train_views(split, LIGHT_AUGMENT, SPEC, 0)
    one, other = (train_loader(views, batch_size=4, seed=0, workers=workers) for workers in (0, 2))
    found = [label for _, labels in one for label in labels.tolist()]
    assert found == [label for _, labels in other for label in labels.tolist()]
    assert Counter(found)[0] in (8, 9)  # of 24: given weights are factors (1 against 1.5 a class)


def test_the_digest_follows_manifest_and_files_and_a_pack_keeps_groups_and_weights(root: Path) -> None:
    whole = opened(root, rows(group=lambda number: number // 2, weight=lambda number: 1 + number))
    write_pack(whole, root / "pack", source="a manifest", size=None)
    packed = open_images(DataConfig(source=str(root / "pack"))).train
    assert np.array_equal([packed.weights, packed.groups], [whole.train.weights, whole.train.groups])
    assert packed[5][0].tobytes() == whole.train[5][0].tobytes()
    digests, config = set(), DataConfig(source=str(root / "images.jsonl"))
    for change in (
        lambda: None,
        lambda: os.utime(root / name(3), (1, 1)),
        lambda: write(root / "images.jsonl", rows()),
    ):
        change()
        data_digest.cache_clear()
        digests.add(data_digest(config))
    assert len(digests) == 3
