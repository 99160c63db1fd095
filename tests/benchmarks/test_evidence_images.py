"""benchmarks/evidence/data.py: what is drawn or linked into each part of a study."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "evidence"))

import data

from vitcompress.core.errors import UsageError


def test_no_typeface_is_in_two_parts() -> None:
    parts = data.split(data.PACKAGES)
    assert parts["more"] == parts["train"]
    apart = [*parts["train"], *parts["val"], *parts["test"]]
    assert sorted(apart) == sorted(data.PACKAGES)
    assert len({package for group in data.PACKAGES for package in group.split("+")}) > 60


def test_every_tenth_class_of_imagenet_is_divided(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no ImageNet-1K"):
        data.imagenet100(tmp_path)
    for at in range(1000):
        for part, each in (("train", 52), ("val", 2)) if at % 10 == 0 else (("train", 0), ("val", 0)):
            folder = tmp_path / "imagenet" / part / f"n{at:08d}"
            folder.mkdir(parents=True)
            for number in range(each):
                (folder / f"{part}{number:03d}.JPEG").touch()
    made = data.imagenet100(tmp_path)
    counts = {part: len(list((made / part).glob("*/*"))) for part in ("train", "val", "test", "teacher/train")}
    assert counts == {"train": 200, "val": 5000, "test": 200, "teacher/train": 200}
    assert sorted(path.name for path in (made / "test").iterdir())[:2] == ["n00000000", "n00000010"]


def test_drawings_of_one_series_or_in_two_classes_are_not_in_two_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    random = np.random.default_rng(0)
    for name in ("animals", "tools"):
        for number in range(40):
            file = tmp_path / "files" / name / f"{'abcdefghij'[number // 4]}_{number % 4}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (60, 50), np.uint8)).save(file)
            link = whole / ("val" if number % 5 == 4 else "train") / name / f"{number:04d}.png"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    (whole / "train" / "tools" / "9000.png").symlink_to(tmp_path / "files" / "animals" / "a_0.png")
    (whole / "train" / "tools" / "9001.png").symlink_to(tmp_path / "files" / "tools" / "b_1.png")
    monkeypatch.setattr(data, "drawings", lambda *_: whole)
    made = data.drawings_parts(tmp_path / "out")
    names = {part: [f"{path.parent.name} {path.name}" for path in sorted((made / part).glob("*/*"))]
             for part in ("train", "val", "test")}  # fmt: skip
    assert {part: len(found) for part, found in names.items()} == {"train": 47, "val": 16, "test": 16}
    of = {f"{link.parent.name} {link.name}": link.resolve() for link in whole.glob("*/*/*")}
    series = {part: {(of[one].parent.name, of[one].stem[0]) for one in found} for part, found in names.items()}
    assert sum(map(len, series.values())) == len(set.union(*series.values()))
    assert tmp_path / "files" / "animals" / "a_0.png" not in {of[one] for found in names.values() for one in found}
