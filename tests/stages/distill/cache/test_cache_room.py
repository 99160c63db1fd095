"""The size limit of the teacher cache, its lock, and its settings."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from cache_run import KEY, ROWS, TinyTeacher, filled, said, store
from filelock import FileLock
from pydantic import ValidationError

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.stages.distill.cache.chunks import Part
from vitcompress.stages.distill.cache.config import CacheConfig
from vitcompress.stages.distill.cache.upkeep import locked


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_a_cache_too_large_is_refused_before_the_teacher_runs(tmp_path: Path, context: Context) -> None:
    cache, teacher = store(tmp_path, max_gb=1e-4), TinyTeacher()
    assert cache.dense_need() > ROWS * 2 * (10 + 2 * 48 * 16)
    wanted = (
        r"would take up to 1\.0 MB \(2 views of 150 images: logits, tap-0, tap-2; .* is there\), "
        r"and distill.cache.max_gb = 0.0001 allows less\. Lower distill.views, use fewer distill.features, "
        r"raise distill.cache.max_gb, or set distill.views=0 for the live teacher"
    )
    with pytest.raises(UsageError, match=wanted):
        filled(cache, context, teacher)
    assert teacher.seen == 0


def test_the_estimate_is_never_less_than_what_is_written(tmp_path: Path, context: Context) -> None:
    cache = store(tmp_path)
    need = cache.dense_need()
    filled(cache, context)
    assert 0.8 * need < size(cache.folder) <= need
    assert cache.dense_need() == 0


def test_a_disk_too_small_is_refused(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 12_345))
    with pytest.raises(UsageError, match=r"has 12.3 kB free.*distill.cache.folder"):
        filled(store(tmp_path), context)


def test_caches_of_others_count_and_are_named(tmp_path: Path, context: Context) -> None:
    shared, teacher = str(tmp_path / "shared"), TinyTeacher()
    first = store(tmp_path, folder=shared)
    filled(first, context)
    limit = 1.5 * size(first.folder) / 1e9
    second = store(tmp_path, folder=shared, key={**KEY, "seed": 9}, max_gb=limit)
    with pytest.raises(UsageError, match=rf"beside .* of other caches \({first.folder.name}\).*delete other caches"):
        filled(second, context)
    filled(store(tmp_path, folder=shared, max_gb=limit), context, teacher)
    assert teacher.seen == 0


def test_a_folder_that_grows_meanwhile_stops_the_filling_below_its_limit(tmp_path: Path, context: Context) -> None:
    teacher = TinyTeacher()

    def beside_another_run(images: Any) -> Any:
        if teacher.seen == 0:
            (tmp_path / "other.safetensors").write_bytes(bytes(1_900_000))
        return teacher(images)

    with pytest.raises(UsageError, match=r"distill.cache.max_gb = 0.002 allows less"):
        filled(store(tmp_path, max_gb=2e-3), context, beside_another_run)
    assert 1_900_000 < size(tmp_path) <= 2_000_000


def test_a_second_run_waits_for_the_first_and_says_so(tmp_path: Path, context: Context) -> None:
    cache = store(tmp_path)
    cache.folder.mkdir(parents=True)
    with (
        FileLock(cache.folder / ".lock"),
        pytest.raises(RunInterrupted, match="waiting"),
        locked(cache, context.say, lambda: True),
    ):
        raise AssertionError("held twice")
    assert f"another run is filling {cache.folder}; waiting for it" in said(context)
    with locked(cache, context.say, bool):
        assert not FileLock(cache.folder / ".lock").is_locked


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = store(tmp_path, folder=str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be written .* distill.cache.folder"), locked(cache, print, bool):
        raise AssertionError("held a file")


@pytest.mark.parametrize("shape", [(384, 14, 14), (1000,), (1024, 24, 24)])
@pytest.mark.parametrize("rows", [7, 1437, 10**7])
def test_files_keep_to_their_size(shape: tuple[int, ...], rows: int) -> None:
    part = Part(name="logits", shape=shape)
    found = part.chunk_rows(256.0, rows)
    assert found & (found - 1) == 0
    assert found * part.row_bytes <= 256e6
    assert found <= max(1, rows // 16)
    assert found == 1024 or 2 * found * part.row_bytes > 256e6 or 2 * found > rows // 16
    assert part.chunk_rows(1e-9, rows) == 1


@pytest.mark.parametrize("change", [{"max_gb": 0.0}, {"chunk_mb": 0.0}, {"folder": ""}])
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CacheConfig(**change)


def test_where_and_how_much_change_no_result() -> None:
    assert CacheConfig(max_gb=3.0, folder="/elsewhere").identity() == CacheConfig().identity()
