"""What keeping a teacher's answers would take: bytes by the cache's own layout, and from which epoch it pays."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from vitcompress.pipeline.teacher_cache import Kept, Pace, cache_rows, existing, measure_reading
from vitcompress.stages.distill.cache.chunks import HEADER_BYTES, Part
from vitcompress.stages.distill.cache.store import Store

PARTS = (Part(name="logits", shape=(10,)), Part(name="tap-11", shape=(24, 4, 4)))


def kept(folder: Path = Path("/"), images: int = 50, max_bytes: float = 1e9) -> Kept:
    return Kept(PARTS, images, folder, max_bytes, 0, operations_share=0.7, answering=0.1, reading=None)


def test_the_bytes_are_those_of_the_files_that_a_run_writes(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", {}, PARTS, images=50, views=2)
    assert kept().bytes_of(2, PARTS) == store.bytes_needed(), "before there are any"
    for part in PARTS:
        for index in range(store.chunks):
            rows = len(store.rows_of(index))
            store.commit(part, index, torch.zeros(rows, *part.shape).half(), torch.ones(rows))
    written = sum(path.stat().st_size for path in store.folder.rglob("*.safetensors"))
    told = kept().bytes_of(2, PARTS)
    assert written <= told < written + HEADER_BYTES * store.chunks * len(PARTS)
    assert told > 2 * 50 * kept().row_bytes == 100 * (2 * 10 + 4 + 2 * 24 * 16 + 4)
    assert kept().bytes_of(2, kept().logits) < told


def test_at_imagenets_size_a_tap_takes_most(tmp_path: Path) -> None:
    """Figures of docs/cache.md: CaiT-S24, one tap."""
    parts = (Part(name="logits", shape=(1000,)), Part(name="tap-23", shape=(384, 14, 14)))
    found = replace(kept(tmp_path, images=1_281_167), parts=parts)
    assert found.row_bytes == 2_004 + 150_532
    assert [round(found.bytes_of(1, each) / 1e9, 1) for each in (parts, found.logits)] == [195.4, 2.6]
    (_, one, *_) = cache_rows(found, [Pace(1.0, 0.5, 1.0)], 300, 1, chosen=0)
    assert (one.views, one.refusal) == (1, "max_gb")


def test_what_a_run_would_refuse_is_told(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert kept(tmp_path).refusal(10**6) == ""
    assert kept(tmp_path).refusal(2 * 10**9) == "max_gb"
    assert kept(tmp_path / "not" / "there", max_bytes=1e30).refusal(100 * free) == "disk"


seconds = some.floats(0.01, 100)


@given(seconds, seconds, seconds, some.integers(2, 200), some.integers(1, 3))
def test_from_the_epochs_that_are_told_it_is_faster_and_before_them_not(
    live: float, cached: float, filling: float, epochs: int, repeats: int
) -> None:
    rows = cache_rows(kept(), [Pace(live, cached, filling)], epochs, repeats, chosen=0)
    assert rows[0].views == 0
    assert rows[0].training == (epochs * live,)
    assert [row.views for row in rows[1:]] == sorted({row.views for row in rows[1:]})
    assert repeats <= rows[1].views
    assert rows[-1].views == epochs * repeats
    for row in rows[1:]:
        (least,) = row.faster_from

        def saves(count: float, views: int = row.views) -> bool:
            return count * cached + views * filling < count * live * (1 + 1e-12)

        if math.isinf(least):
            assert cached >= live
            continue
        assert saves(least)
        assert least * repeats >= row.views
        earlier = least - 1
        assert earlier * repeats < row.views or not (
            earlier * cached + row.views * filling < earlier * live * (1 - 1e-12)
        )


def test_the_number_of_views_that_is_asked_for_has_its_row() -> None:
    rows = cache_rows(kept(), [Pace(2.0, 1.0, 1.0), Pace(1.0, 2.0, 1.0)], 40, 1, chosen=7)
    assert [row.views for row in rows] == [0, 1, 2, 5, 7, 10, 40]
    assert rows[4].filling == (7.0, 7.0)
    assert rows[4].faster_from == (8, math.inf)


def test_reading_is_measured_on_the_disk_of_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "later" / "cache"
    found = measure_reading(PARTS, 5000, folder)
    assert found is not None
    assert found > 0
    assert list(tmp_path.iterdir()) == []
    assert existing(folder) == tmp_path


def test_a_disk_that_cannot_be_written_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("vitcompress.pipeline.teacher_cache.TemporaryDirectory", refused)
    assert measure_reading(PARTS, 50, tmp_path) is None
