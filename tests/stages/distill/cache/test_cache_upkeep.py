from __future__ import annotations

import io
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from cache_run import BATCH, KEY, ROWS, DigitViews, TinyTeacher, store
from filelock import FileLock

from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.stages.distill.cache.chunks import Part
from vitcompress.stages.distill.cache.fill import fill
from vitcompress.stages.distill.cache.upkeep import locked, prepare


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_cache_too_large_is_refused_before_the_teacher_runs(tmp_path: Path, context) -> None:
    cache, teacher = store(tmp_path, max_gb=1e-4), TinyTeacher()
    assert cache.dense_need() > ROWS * 2 * (10 + 2 * 48 * 16)
    wanted = (
        r"would take up to 1\.0 MB \(2 views of 150 images: logits, tap-0, tap-2; .* is there\), "
        r"and distill.cache.max_gb = 0.0001 allows less\. Lower distill.views, use fewer distill.features, "
        r"raise distill.cache.max_gb, or set distill.views=0 for the live teacher"
    )
    with pytest.raises(UsageError, match=wanted):
        fill(cache, DigitViews(), teacher, context, batch_size=BATCH)
    assert teacher.seen == 0


def test_the_estimate_is_never_less_than_what_is_written(tmp_path: Path, context) -> None:
    cache = store(tmp_path)
    need = cache.dense_need()
    fill(cache, DigitViews(), TinyTeacher(), context, batch_size=BATCH)
    assert 0.8 * need < size(cache.folder) <= need
    assert cache.dense_need() == 0


def test_a_disk_too_small_is_refused(tmp_path: Path, context, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 12_345))
    with pytest.raises(UsageError, match=r"has 0.0 MB free.*distill.cache.folder"):
        fill(store(tmp_path), DigitViews(), TinyTeacher(), context, batch_size=BATCH)


def test_caches_of_others_count_and_are_named(tmp_path: Path, context) -> None:
    shared = str(tmp_path / "shared")
    first = store(tmp_path, folder=shared)
    fill(first, DigitViews(), TinyTeacher(), context, batch_size=BATCH)
    limit = 1.5 * size(first.folder) / 1e9
    second = store(tmp_path, folder=shared, key={**KEY, "seed": 9}, max_gb=limit)
    with pytest.raises(
        UsageError, match=rf"beside [01]\.\d MB of other caches \({first.folder.name}\).*delete other caches"
    ):
        fill(second, DigitViews(), TinyTeacher(), context, batch_size=BATCH)
    again = store(tmp_path, folder=shared, max_gb=limit)
    assert fill(again, DigitViews(), TinyTeacher(), context, batch_size=BATCH).computed == 0


def test_a_folder_that_grows_meanwhile_stops_the_filling_below_its_limit(tmp_path: Path, context) -> None:
    cache = store(tmp_path, max_gb=2e-3)
    teacher = TinyTeacher()

    def beside_another_run(images):
        if teacher.seen == 0:
            (tmp_path / "other").write_bytes(bytes(1_900_000))
        return teacher(images)

    with pytest.raises(UsageError, match=r"have grown to (1\.9|2\.0) MB.*distill.cache.max_gb = 0.002"):
        fill(cache, DigitViews(), beside_another_run, context, batch_size=BATCH)
    assert 1_900_000 < size(tmp_path) <= 2_000_000


def test_a_second_run_waits_for_the_first_and_says_so(tmp_path: Path, context) -> None:
    cache = store(tmp_path)
    cache.folder.mkdir(parents=True)
    with (
        FileLock(cache.folder / ".lock"),
        pytest.raises(RunInterrupted, match="waiting"),
        locked(cache, context.say, lambda: True),
    ):
        raise AssertionError("held twice")
    assert isinstance(context.console.file, io.StringIO)
    assert f"another run is filling {cache.folder}; waiting for it" in context.console.file.getvalue()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, context) -> None:
    (tmp_path / "file").write_text("")
    cache = store(tmp_path, folder=str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be written .* distill.cache.folder"), locked(cache, print, bool):
        raise AssertionError("held a file")


def test_only_caches_are_removed_from_the_runs_folder(tmp_path: Path, context) -> None:
    keep = tmp_path / "notes"
    keep.mkdir()
    stale = tmp_path / ("0" * 16)
    stale.mkdir()
    cache = store(tmp_path)
    with locked(cache, context.say, bool):
        prepare(cache, context.say)
    assert keep.exists()
    assert not stale.exists()


@pytest.mark.parametrize("shape", [(384, 14, 14), (1000,), (1024, 24, 24)])
@pytest.mark.parametrize("rows", [7, 1437, 10**7])
def test_files_end_at_common_rows_and_keep_to_their_size(shape, rows: int) -> None:
    part = Part(name="logits", shape=shape)
    found = part.chunk_rows(256.0, rows)
    assert found & (found - 1) == 0
    assert part.dense_bytes(found) <= 256e6
    assert found <= max(1, rows // 16)
    assert found == 1024 or part.dense_bytes(2 * found) > 256e6 or 2 * found > rows // 16
    assert part.chunk_rows(1e-9, rows) == 1
