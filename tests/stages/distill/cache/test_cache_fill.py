from __future__ import annotations

import io
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from cache_run import (
    BATCH,
    IMAGES,
    KEY,
    LAYERS,
    ROWS,
    DigitViews,
    TinyTeacher,
    files,
    live,
    parts,
    store,
)
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted
from vitcompress.stages.distill.cache.fill import Processes, fill, parts_of
from vitcompress.stages.distill.cache.lowrank import relative_errors
from vitcompress.stages.distill.cache.report import CacheReport
from vitcompress.stages.distill.cache.store import Store


def filled(cache: Store, context: Context, teacher=None, **options) -> CacheReport:
    layers = tuple(int(part.name[4:]) for part in cache.parts if part.name != "logits")
    return fill(cache, DigitViews(), teacher or TinyTeacher(layers), context, **{"batch_size": BATCH, **options})


def said(context: Context) -> str:
    assert isinstance(context.console.file, io.StringIO)
    return context.console.file.getvalue()


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


def test_what_the_teacher_gives_is_told_by_one_image() -> None:
    assert parts_of(TinyTeacher(), torch.zeros(1, 3, 32, 32), LAYERS) == parts()
    assert parts_of(lambda images: (None, [images]), torch.zeros(1, 3, 8, 8), (5,))[0].name == "tap-5"


def test_every_row_comes_back_within_half_precision(tmp_path: Path, context) -> None:
    cache, teacher = store(tmp_path), TinyTeacher()
    report = filled(cache, context, teacher)
    assert (report.rows, report.computed, teacher.seen) == (ROWS, ROWS, ROWS)
    for name, wanted in live(teacher).items():
        found = torch.stack([cache.read(name, row) for row in range(ROWS)])
        assert found.dtype == torch.float32
        assert float(relative_errors(found, wanted).max()) <= 2.0**-11
        if all(part.low_rank_share == 0 for part in report.parts if part.name == name):
            # rounding, at most 2^-11 |x| + 2^-39 max|x|, and the order of sums in another batch
            torch.testing.assert_close(found, wanted, rtol=2.0**-11 + 1e-5, atol=1e-5)
    assert f"{ROWS} views, {ROWS} computed" in said(context)


def test_the_report_says_what_was_stored(tmp_path: Path, context, finished) -> None:
    report = filled(store(tmp_path), context)
    assert [part.name for part in report.parts] == ["logits", "tap-0", "tap-2"]
    for part in report.parts:
        on_disk = sum(len(content) for name, content in finished.items() if name.startswith(f"{part.name}/0"))
        assert part.bytes == on_disk
        assert 0 < part.error <= 2.0**-11
        assert (part.mean_rank is None) == (part.low_rank_share == 0)


def test_a_complete_cache_is_verified_and_the_teacher_left_alone(complete: Store, context) -> None:
    teacher = TinyTeacher()
    report = filled(complete, context, teacher)
    assert (report.computed, teacher.seen) == (0, 0)
    assert "verified in" in said(context)


def test_every_entry_of_the_key_makes_another_cache(tmp_path: Path) -> None:
    changed = [{**KEY, entry: "changed"} for entry in KEY]
    assert len({store(tmp_path, key=key).folder for key in (KEY, *changed)}) == 1 + len(KEY)
    assert store(tmp_path, key=dict(reversed(KEY.items()))).folder == store(tmp_path).folder


@pytest.mark.parametrize("entry", ["teacher", "augment"])
def test_another_key_is_computed_and_the_runs_own_old_cache_goes(entry: str, tmp_path: Path, context) -> None:
    old = store(tmp_path, (0,))
    filled(old, context)
    new = store(tmp_path, (0,), key={**KEY, entry: "changed"})
    assert filled(new, context).computed == ROWS
    assert not old.folder.exists()
    assert f"removed {old.folder.name}" in said(context)


@pytest.mark.parametrize("change", [{"tap_error": 0.1}, {"chunk_mb": 1.0}])
def test_settings_that_change_values_are_in_the_key(change, tmp_path: Path) -> None:
    assert store(tmp_path, **change).folder != store(tmp_path).folder
    assert store(tmp_path, max_gb=1.0).folder == store(tmp_path).folder


def test_a_shared_folder_keeps_the_caches_of_others(tmp_path: Path, context) -> None:
    shared = str(tmp_path / "shared")
    one = store(tmp_path, folder=shared)
    filled(one, context)
    two = store(tmp_path, folder=shared, key={**KEY, "seed": 1})
    filled(two, context)
    assert one.folder.parent == two.folder.parent == tmp_path / "shared"
    assert filled(store(tmp_path / "other run", folder=shared), context).computed == 0


def test_runs_with_other_taps_share_what_they_have_in_common(tmp_path: Path, context, finished) -> None:
    filled(store(tmp_path, (0,)), context)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.safetensors")}
    assert {path.parent.name for path in before} == {"logits", "tap-0"}
    assert filled(store(tmp_path, (0, 2)), context).computed == ROWS
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert files(tmp_path).keys() == finished.keys()
    teacher = TinyTeacher((2,))
    assert filled(store(tmp_path, (2,)), context, teacher).computed == teacher.seen == 0


def test_features_of_low_rank_are_stored_as_factors_and_noise_is_not(tmp_path: Path, context) -> None:
    generator = torch.Generator().manual_seed(0)
    basis, noise = torch.randn(48, 3, generator=generator), torch.randn(ROWS, 48, 4, 4, generator=generator)

    def teacher(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows = slice(teacher.row, teacher.row + len(images))
        teacher.row = rows.stop
        flat = (basis @ images[:, :, ::8, ::8].flatten(2).add(noise[rows, :3].flatten(2))).unflatten(2, (4, 4))
        return images.mean((2, 3)).repeat(1, 4)[:, :10], [flat, noise[rows]]

    teacher.row = 0
    cache = store(tmp_path)
    report = filled(cache, context, teacher)
    logits, low, high = report.parts
    assert (logits.mean_rank, high.mean_rank) == (None, None)
    assert (low.mean_rank, low.low_rank_share) == (3, 1)
    assert low.bytes < 0.4 * low.dense_bytes
    assert max(low.error, high.error) <= 2.0**-11
    torch.testing.assert_close(cache.read("tap-2", 277), noise[277], rtol=2.0**-11, atol=0)


def test_taps_beyond_half_precisions_range_are_kept(tmp_path: Path, context) -> None:
    base = TinyTeacher()

    def loud(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, taps = base(images)
        return logits, [1e6 * tap for tap in taps]

    cache = store(tmp_path)
    filled(cache, context, loud)
    wanted = 1e6 * live(base)["tap-2"]
    assert float(wanted.abs().amax()) > 65504
    found = torch.stack([cache.read("tap-2", row) for row in range(ROWS)])
    assert float(relative_errors(found, wanted).max()) <= 2.0**-11


def test_a_teacher_whose_logits_nobody_uses(tmp_path: Path, context) -> None:
    cache = store(tmp_path)
    taps_alone = Store(cache.config, KEY, parts()[1:], images=IMAGES, views=2, run_folder=tmp_path)
    teacher = TinyTeacher()
    filled(taps_alone, context, lambda images: (None, teacher(images)[1]))
    assert {path.name for path in taps_alone.folder.iterdir() if path.is_dir()} == {"tap-0", "tap-2"}


@pytest.mark.parametrize(("name", "place"), [("logits", None), ("tap-0", 0), ("tap-2", 1)])
def test_answers_that_are_not_finite_are_refused_by_layer_and_view(name, place, tmp_path: Path, context) -> None:
    base = TinyTeacher()

    def broken(images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, taps = base(images)
        if base.seen > 160:
            (logits if place is None else taps[place])[2] = torch.nan
        return logits, taps

    with pytest.raises(ResultError, match=rf"the teacher's {name} is not finite on image 12, view 1 \(row 162 "):
        filled(store(tmp_path), context, broken, batch_size=4)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_computed_again(damage: str, complete: Store, tmp_path: Path, context, finished) -> None:
    path = complete.chunk_path("tap-2", 1)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-7])
    else:
        content[-5] ^= 1
        path.write_bytes(content)
    report = filled(store(tmp_path), context)
    assert 0 < report.computed < ROWS
    assert "tap-2 chunk 000001 damaged or missing, computed again" in said(context)
    assert files(tmp_path) == finished


@pytest.mark.parametrize("damage", ["older", "half", "empty"])
def test_a_manifest_of_another_format_or_half_of_one_is_rebuilt(
    damage, complete: Store, tmp_path: Path, context, finished
) -> None:
    path = complete.folder / "tap-0" / "manifest.json"
    text = path.read_text()
    changed = {"older": text.replace('"format": 1', '"format": 0'), "half": text[: len(text) // 2], "empty": ""}
    assert changed[damage] != text
    path.write_text(changed[damage])
    assert filled(store(tmp_path), context).computed == ROWS
    assert "tap-0 is computed again, its manifest is damaged or of another version" in said(context)
    assert files(tmp_path) == finished


def test_a_cache_without_its_key_is_computed_again(complete: Store, tmp_path: Path, context, finished) -> None:
    (complete.folder / "key.json").write_text("{}")
    assert filled(store(tmp_path), context).computed == ROWS
    assert files(tmp_path) == finished


def test_what_a_crash_leaves_behind_is_cleared(tmp_path: Path, context, finished) -> None:
    cache = store(tmp_path)
    (cache.folder / "tap-0").mkdir(parents=True)
    half = cache.folder / "tap-0" / ".000000.safetensors.123"
    half.write_bytes(b"half a file")
    cache.chunk_path("tap-0", 2).write_bytes(b"complete, perhaps, but in no manifest")
    filled(cache, context)
    assert not half.exists()
    assert files(tmp_path) == finished


def test_a_killed_filling_goes_on_to_the_same_bytes(tmp_path: Path, context, finished) -> None:
    cache = store(tmp_path)

    def slowly() -> None:
        torch.set_num_threads(1)  # a forked process has no others, and would wait for them
        filled(store(tmp_path), context, TinyTeacher(pause=0.05))

    process = multiprocessing.get_context("fork").Process(target=slowly, daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + 60
        while len(list(cache.folder.glob("tap-2/*.safetensors"))) < 2 and time.monotonic() < deadline:
            assert process.is_alive()
            time.sleep(0.02)
    finally:
        process.kill()
        process.join()
    done = len(cache.manifest(parts()[2]).chunks)
    assert 1 <= done < 38
    report = filled(store(tmp_path), context)
    assert 0 < report.computed < ROWS
    assert files(tmp_path) == finished


def test_a_stop_keeps_complete_chunks_and_the_next_start_goes_on(tmp_path: Path, context, finished) -> None:
    teacher = TinyTeacher()
    with pytest.raises(RunInterrupted, match="files of the teacher cache to compute; the same command goes on"):
        filled(store(tmp_path), context, teacher, stop=lambda: teacher.seen > 100)
    assert 100 < teacher.seen < 120
    assert "stopping after the file at hand, 10 more views" in said(context)
    kept = len(store(tmp_path).manifest(parts()[1]).chunks)
    report = filled(store(tmp_path), context)
    assert kept > 0
    assert 0 < report.computed < ROWS
    assert files(tmp_path) == finished


def test_loader_processes_change_no_byte(tmp_path: Path, context, finished) -> None:
    state = torch.get_rng_state()
    filled(store(tmp_path), context, workers=2)
    assert files(tmp_path) == finished
    assert torch.equal(torch.get_rng_state(), state)


def test_two_processes_share_the_work_and_write_the_same_bytes(tmp_path: Path, context, finished) -> None:
    barrier = threading.Barrier(2)
    teachers = [TinyTeacher(), TinyTeacher()]  # made one after the other: their weights come from a common generator
    reports: dict[int, CacheReport] = {}

    def one(rank: int) -> None:
        reports[rank] = filled(
            store(tmp_path), context, teachers[rank], processes=Processes(rank, 2, lambda: barrier.wait(60) and None)
        )

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert reports[0].computed + reports[1].computed == ROWS
    assert min(reports[0].computed, reports[1].computed) > 0
    assert files(tmp_path) == finished


def test_when_one_process_is_stopped_all_stop(tmp_path: Path, context, finished) -> None:
    barrier = threading.Barrier(2)
    teachers = [TinyTeacher(), TinyTeacher()]
    interrupted: list[int] = []

    def one(rank: int) -> None:
        processes = Processes(rank, 2, lambda: barrier.wait(60) and None)
        with pytest.raises(RunInterrupted):
            filled(store(tmp_path), context, teachers[rank], processes=processes, stop=lambda: rank == 1)
        interrupted.append(rank)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(interrupted) == [0, 1]
    assert teachers[0].seen > teachers[1].seen == 0
    assert filled(store(tmp_path), context).computed == ROWS - teachers[0].seen
    assert files(tmp_path) == finished
