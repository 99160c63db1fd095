"""A dry run's figures are those of the run; it leaves nothing behind, and mistakes are told as the run tells them."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import printed
from PIL import Image
from rich.console import Console
from small_run import STUDENT, STUDENT_ARGS, TEACHER, TEACHER_ARGS
from torch.utils.data import IterableDataset

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.core.words import duration, size
from vitcompress.pipeline import dry_run as dry_run_module
from vitcompress.pipeline import dry_run_steps
from vitcompress.pipeline.config import RunConfig, load_layer, merge, parse_sets, validate
from vitcompress.pipeline.cost_model import Fraction, parse_cluster
from vitcompress.pipeline.dry_run import DryRun, dry_run
from vitcompress.pipeline.dry_run_steps import Training
from vitcompress.pipeline.report import dry_run as report
from vitcompress.pipeline.report.dry_run import elsewhere, tables, total_seconds
from vitcompress.pipeline.teacher_cache import Kept
from vitcompress.stages.images.sources import timm_datasets
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.measure import StepCost, StepLine

IMAGES, HELD_OUT = 1438, 359
TINY = {
    "teacher": {"model": TEACHER, "args": TEACHER_ARGS, "batch_size": 64, "epochs": 3, "warmup_epochs": 0},
    "student": {"model": STUDENT, "args": STUDENT_ARGS},
    "distill": {"batch_size": 48, "epochs": 5, "warmup_epochs": 0, "eval_every": 2},
}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of their own, where whatever stays is found."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(dry_run_steps, "_LOADING_SECONDS", 0.02)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """Of the tiny run, everything at its default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dry_run_steps, "_LOADING_SECONDS", 0.02)
        return tried(output=tmp_path_factory.mktemp("found") / "run")


def tiny(*settings: str) -> RunConfig:
    return validate(merge(merge(load_layer("digits"), TINY), parse_sets(settings)))


def tried(*settings: str, output: Path | None = None, processes: int = 1) -> DryRun:
    return dry_run(tiny(*settings), output, processes, Console(file=io.StringIO()))


def left(folder: Path) -> list[Path]:
    return sorted(path for name in ("work", "temporary") for path in (folder / name).rglob("*"))


def shown(found: DryRun, width: int = 100) -> str:
    return printed(tables(found), width)


def test_figures_are_those_of_the_networks_and_the_config(found: DryRun) -> None:
    spec = ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=10)
    lift = ModelSpec(arch=STUDENT, args=STUDENT_ARGS, num_classes=10, graph="lift-kept", lift_width=48)
    costs = {network.name: network.cost for network in found.networks}
    assert costs == {"teacher": cost_of(build_model(spec), 32), "student, trained": cost_of(build_model(lift), 32)}
    teacher, student = found.trainings
    assert (teacher.name, teacher.epochs, teacher.steps_per_epoch) == ("teacher", 3, IMAGES // 64)
    assert (student.name, student.epochs, student.steps) == ("student", 5, 5 * (IMAGES // 48))
    assert (teacher.images, teacher.held_out) == (IMAGES, HELD_OUT)
    assert (teacher.evaluations, student.evaluations) == (2, 3), "after epochs 2 and 3, and after 2, 4 and 5"
    assert teacher.evaluation_seconds == pytest.approx(2 * 359 * (2 * teacher.evaluating + 1 / teacher.loading)), (
        "raw and averaged weights on images that are loaded once"
    )
    assert found.kept is not None
    assert [part.name for part in found.kept.parts] == ["logits", "tap-2"]
    assert teacher.reading == student.reading == 0, "the teacher is live"
    assert not teacher.extrapolated
    assert (teacher.line.small.images, teacher.line.large.images, student.line.large.images) == (32, 64, 48)
    assert teacher.pass_seconds == pytest.approx(teacher.line.large.seconds + 64 / teacher.loading), (
        "no workers: in turn"
    )
    assert teacher.seconds == pytest.approx(3 * 22 * teacher.pass_seconds + teacher.evaluation_seconds)
    assert total_seconds(found) == teacher.seconds + student.seconds
    assert not found.output.exists()


def test_the_tables_say_what_was_found_and_fit(found: DryRun) -> None:
    text = shown(found)
    assert f"{found.networks[0].cost.parameters:,}" in text
    assert "66 (22 an epoch)" in text
    assert f"about {duration(total_seconds(found))}" in text
    assert "reduced geometry" in text
    bytes_kept = 4 * 4 * found.networks[1].cost.parameters
    assert f"and 4 snapshots on the way, about {size(bytes_kept)} of disk" in " ".join(shown(found, 200).split())
    for width in (80, 100):
        assert max(map(len, shown(found, width).splitlines())) <= width


def test_a_step_that_takes_too_long_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run_steps, "_BUDGET_SECONDS", 0)
    found = tried()
    student = found.trainings[-1]
    assert student.extrapolated
    assert (student.line.small.images, student.line.large.images, student.per_pass) == (2, 4, 48)
    assert "extrapolated from 2 and 4" in shown(found)


def test_processes_and_accumulation_share_the_batch() -> None:
    found = tried("distill.accumulation=2", "teacher.batch_size=48", processes=3)
    student = found.trainings[-1]
    assert (student.per_pass, student.line.large.images) == (48 // 2 // 3, 48 // 2 // 3)
    assert student.passes_per_epoch == IMAGES // 24
    assert student.steps_per_epoch == -(-(IMAGES // 24) // 2)
    assert student.step_seconds == pytest.approx(2 * student.pass_seconds)
    assert "48 = 8 x 2 accumulated x 3 processes" in " ".join(shown(found).split())
    with pytest.raises(UsageError, match=r"teacher\.batch_size is 64, which 3 processes .* multiple of 3"):
        tried(processes=3)


def test_views_are_answered_once_and_the_steps_do_without_the_teacher() -> None:
    found = tried("distill.views=2", "distill.features=[]")
    assert found.kept is not None
    assert [part.name for part in found.kept.parts] == ["logits"]
    assert found.kept.row_bytes == 2 * 10 + 4, "ten logits in half precision, and their scale"
    student = found.trainings[-1]
    assert found.kept.operators > 0 < student.operators
    filling = 2 * student.pace(found.kept, live=False).filling
    assert filling > 2 * IMAGES / student.loading
    assert total_seconds(found) == pytest.approx(sum(training.seconds for training in found.trainings) + filling)
    assert "24 bytes for a view of an image (logits)" in shown(found)


def test_the_pace_with_and_without_the_teacher_differs_by_its_answers_alone() -> None:
    kept = Kept((), 10_000, Path(), 1.0, 0, operations_share=0.7, answering=0.1, reading=0.02)
    live = long_training()
    cached = replace(live, line=StepLine(StepCost(8, 1.2, None), StepCost(16, 2.4, None)), reading=0.02)
    measured, derived = live.pace(kept, live=True), cached.pace(kept, live=False)
    assert measured == pytest.approx(derived)
    batches, loading = 10_000 // 16, 16 / 100
    assert measured.live == pytest.approx(batches * (4.0 + loading))
    assert measured.cached == pytest.approx(batches * (4.0 - 16 * 0.1 + loading + 16 * 0.02 / 2)), "two loaders read"
    assert measured.filling == pytest.approx(10_000 * (0.1 + 1 / 100))
    assert cached.pass_seconds == pytest.approx(measured.cached / batches)
    disturbed = live.pace(replace(kept, answering=1.0), live=True)
    assert disturbed.cached == pytest.approx(batches * (0.3 * 4.0 + loading + 16 * 0.02 / 2)), "the student is not free"


class Stream(IterableDataset[Any]):
    """Forty images that can only be read in order."""

    class_to_idx = {"even": 0, "odd": 1}  # noqa: RUF012

    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Any:
        return ((Image.new("L", (32, 32), 5 * value), value % 2) for value in range(40))


def test_a_stream_is_measured_and_keeps_no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_datasets, "_create", lambda *_: Stream())
    settings = ("data.source=wds/x", "teacher.batch_size=16", "distill.batch_size=16", "geometry=reduced", "workers=0")
    found = tried(*settings)
    assert [training.steps_per_epoch for training in found.trainings] == [2, 2]
    assert all(training.seconds > 0 for training in found.trainings)
    with pytest.raises(UsageError, match=r"'wds/x' can only be read in order.* use distill\.views=0"):
        tried(*settings, "distill.views=1")


@pytest.mark.parametrize("views", [0, 1])
def test_pixels_that_the_device_normalizes_are_measured_as_they_train(views: int) -> None:
    on_device = [f"{section}.augment.normalize_on=device" for section in ("teacher", "distill")]
    found = tried(*on_device, f"distill.views={views}", "distill.epochs=1", "teacher.epochs=1")
    assert [training.operators > 0 for training in found.trainings] == [True, True]
    assert found.kept is not None


def test_a_cache_without_room_is_told_as_the_run_tells_it(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"cache would take up to .* distill\.cache\.max_gb"):
        tried("distill.views=2", "distill.cache.max_gb=0.00001")
    assert left(tmp_path) == []


def test_nothing_stays_of_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        assert left(tmp_path), "the networks are written for a time"
        raise KeyboardInterrupt

    monkeypatch.setattr(dry_run_module, "learning", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tried()
    assert left(tmp_path) == []


def test_more_memory_than_there_is_is_warned_of(found: DryRun) -> None:
    assert "Warning" not in shown(found)
    text = " ".join(shown(replace(found, memory=1_000_000)).split())
    assert "Warning: training the student would take about" in text
    assert "raise distill.accumulation or lower distill.batch_size" in text


def test_an_undecided_strategy_stays_so_and_what_was_measured_is_said() -> None:
    found = tried("student.strategy=auto", "teacher.init=pretrained")
    assert found.config.student.strategy == "auto"
    assert "projected" in found.networks[1].what
    told = " ".join(shown(found).split())
    assert "measured here was lift on the last layers" in told
    assert "pretrained weights were not fetched" in told


def long_training(**changes: Any) -> Training:
    """A hundred epochs of ten thousand images."""
    line = StepLine(StepCost(8, 2.0, None), StepCost(16, 4.0, None))
    config = TrainingConfig(batch_size=16, eval_every=100, ema_decay=None)
    given = Training("student", config, 100, 10_000, 1000, 1, line, 100.0, 2, True, 0.01)
    return replace(given, **changes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("distill.augment.mixup=0.8", "distill.batch_size=48"), "what a teacher says of images that are mixed"),
        (("distill.alpha=0", "distill.features=[]"), None),
    ],
)
def test_where_no_answers_can_be_kept_that_is_said_and_where_none_are_asked_nothing(
    settings: tuple[str, ...], told: str | None
) -> None:
    found = tried(*settings)
    assert found.kept is None
    text = shown(found)
    assert told in " ".join(text.split()) if told else "Teacher cache" not in text


def test_other_machines_are_told_with_all_that_is_assumed(found: DryRun) -> None:
    for name in ("4xH100", "2x4xT4"):
        text = printed(elsewhere(found, parse_cluster(name)), 100)
        told = " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 100
        assert f"On {name}" in told
        assert "never measured" in told
        assert "a core here gives" in told
        assert f"Teacher cache on {name}" in told
    assert "between machines" in told
    assert "Memory of a card" not in told, "a CPU does not tell what a GPU would take"


def test_what_a_gpu_told_of_memory_is_compared_with_the_cards(found: DryRun) -> None:
    line = StepLine(StepCost(8, 1.0, 9 * 10**9), StepCost(16, 2.0, 17 * 10**9))
    trainings = tuple(replace(training, line=line) for training in found.trainings)
    on_gpu = replace(found, config=found.config.model_copy(update={"device": "cuda"}), trainings=trainings)
    told = {count: " ".join(printed(elsewhere(on_gpu, parse_cluster(f"{count}xT4")), 100).split()) for count in (1, 8)}
    assert "student about 49 GB (48 images), MORE THAN IT HAS" in told[1]
    assert "student about 7.0 GB (6 images)." in told[8]


def test_a_measured_card_goes_before_what_is_assumed(found: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Fraction(0.25, 0.35, "measured on one NVIDIA H100 80GB HBM3 (a step; today)")
    monkeypatch.setattr(report, "fraction_of", lambda card, cached: made)
    told = " ".join(printed(elsewhere(found, parse_cluster("H100")), 100).split())
    assert "25% to 35% of 989 TFLOP/s, measured on one NVIDIA H100 80GB HBM3" in told
    assert "never measured" not in told
