"""Filling a teacher cache: what is stored, shared, checked and computed again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cache_run import IMAGES, KEY, ROWS, VIEWS, TinyTeacher, files, filled, live, parts, store
from small_run import said
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted
from vitcompress.stages.distill.cache.store import Store


@pytest.fixture(scope="module")
def finished_folder(module_context: Context) -> Path:
    """Of a cache filled at one go. Not to be changed."""
    folder = module_context.run.root / "cache"
    filled(store(folder), module_context)
    return folder


@pytest.fixture(scope="module")
def finished(finished_folder: Path) -> dict[str, bytes]:
    """The files of a cache filled at one go."""
    return files(finished_folder)


@pytest.fixture
def complete(finished_folder: Path, tmp_path: Path) -> Store:
    """A copy of that cache, in ``tmp_path``."""
    shutil.copytree(finished_folder, tmp_path, dirs_exist_ok=True)
    return store(tmp_path)


@pytest.mark.parametrize("loudness", [1.0, 1e6])
def test_every_row_comes_back_within_half_precision(tmp_path: Path, context: Context, loudness: float) -> None:
    """Also beyond half precision's range."""
    cache, base = store(tmp_path), TinyTeacher()

    def loud(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, taps = base(images)
        return logits, [loudness * tap for tap in taps]

    report = filled(cache, context, loud)
    assert (report.views, base.seen) == (ROWS, ROWS)
    for name, answers in live(base).items():
        wanted = answers if name == "logits" else loudness * answers
        found = torch.stack([cache.read(name, row) for row in range(ROWS)])
        assert found.dtype == torch.float32
        # rounding, at most 2^-11 |x| + 2^-39 max|x|, and the order of sums in another batch
        torch.testing.assert_close(found, wanted, rtol=2.0**-11 + 1e-5, atol=loudness * 1e-5)
    assert f"{ROWS} views, {ROWS} computed" in said(context)
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.glob("*/*/*.safetensors"))


def test_another_key_is_computed_and_the_runs_own_old_cache_goes(tmp_path: Path, context: Context) -> None:
    old, new, teacher = store(tmp_path, (0,)), store(tmp_path, (0,), key={**KEY, "seed": 1}), TinyTeacher((0,))
    keep = tmp_path / "notes"
    keep.mkdir()
    filled(old, context)
    filled(new, context, teacher)
    assert teacher.seen == ROWS
    assert keep.exists()
    assert not old.folder.exists()
    assert f"removed {old.folder.name}" in said(context)


def test_runs_with_other_taps_share_what_they_have_in_common(
    tmp_path: Path, context: Context, finished: dict[str, bytes]
) -> None:
    filled(store(tmp_path, (0,)), context)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.safetensors")}
    assert {path.parent.name for path in before} == {"logits", "tap-0"}
    filled(store(tmp_path, (0, 2)), context)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert files(tmp_path).keys() == finished.keys()
    teacher = TinyTeacher((2,))
    filled(store(tmp_path, (2,)), context, teacher)
    assert teacher.seen == 0


def test_a_teacher_whose_logits_nobody_uses(tmp_path: Path, context: Context) -> None:
    taps_alone = Store(tmp_path, KEY, parts()[1:], images=IMAGES, views=2)
    teacher = TinyTeacher()
    filled(taps_alone, context, lambda images: (None, teacher(images)[1]))
    assert {path.name for path in taps_alone.folder.glob("*/")} == {"tap-0", "tap-2"}


@pytest.mark.parametrize(("name", "place"), [("logits", None), ("tap-0", 0), ("tap-2", 1)])
def test_answers_that_are_not_finite_are_refused_by_layer_and_view(
    name: str, place: int | None, tmp_path: Path, context: Context
) -> None:
    base = TinyTeacher()

    def broken(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, taps = base(images)
        if base.seen > 160:
            (logits if place is None else taps[place])[0] = torch.nan
        return logits, taps

    with pytest.raises(ResultError, match=rf"the teacher's {name} is not finite on image 10, view 1;"):
        filled(store(tmp_path), context, broken)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_file_is_computed_again(
    damage: Callable[[Path], None], complete: Store, tmp_path: Path, context: Context, finished: dict[str, bytes]
) -> None:
    damage(complete.chunk_path("tap-2", 1))
    teacher = TinyTeacher()
    filled(store(tmp_path), context, teacher)
    assert teacher.seen == 8
    assert "tap-2 chunk 000001 damaged or missing, computed again" in said(context)
    assert files(tmp_path) == finished


def test_what_a_crash_leaves_behind_is_computed_again_and_cleared(
    complete: Store, tmp_path: Path, context: Context, finished: dict[str, bytes]
) -> None:
    complete.chunk_path("tap-0", 2).with_suffix(".json").unlink()  # complete, perhaps
    cut(complete.chunk_path("tap-0", 3).with_suffix(".json"))
    half = complete.folder / "tap-0" / ".000000.safetensors.123"
    half.write_bytes(b"half a file")
    filled(store(tmp_path), context)
    assert not half.exists()
    assert files(tmp_path) == finished


def test_a_stop_keeps_complete_files_and_the_next_start_goes_on(
    tmp_path: Path, context: Context, finished: dict[str, bytes]
) -> None:
    teacher, rest = TinyTeacher(), TinyTeacher()
    with pytest.raises(RunInterrupted, match="files of the teacher cache to compute; the same command goes on"):
        filled(store(tmp_path), context, teacher, stop=lambda: teacher.seen > 100)
    filled(store(tmp_path), context, rest)
    assert ROWS <= teacher.seen + rest.seen < ROWS + 8  # but for the file at hand nothing is computed again
    assert files(tmp_path) == finished


def test_loader_processes_change_no_byte(tmp_path: Path, context: Context, finished: dict[str, bytes]) -> None:
    state = torch.get_rng_state()
    filled(store(tmp_path), replace(context, workers=2))
    assert files(tmp_path) == finished
    assert torch.equal(torch.get_rng_state(), state)


def test_runs_of_one_teacher_share_a_folder_and_remove_nothing_of_others(tmp_path: Path, context: Context) -> None:
    def shared(seed: int) -> Store:
        return Store(tmp_path, {**KEY, "seed": seed}, parts(), images=IMAGES, views=VIEWS, shared=True)

    filled(shared(0), context)
    filled(shared(1), context)
    kept, teacher = files(tmp_path), TinyTeacher()
    filled(shared(0), context, teacher)
    assert teacher.seen == 0, "the second run reads what the first computed"
    assert files(tmp_path) == kept
