"""Distillation from kept answers of the teacher: what the student sees, and that the teacher runs once a view."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import NO_AUGMENT, SETTLED, data_record, student_record, teacher_record

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.records import DistillRecord
from vitcompress.stages.distill import job as distill_job
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.cache.config import CacheConfig
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.job import Inputs
from vitcompress.stages.images.sources import Images, StreamSplit


def config(**changes: Any) -> DistillConfig:
    values: dict[str, Any] = {
        **SETTLED,
        "batch_size": 16,
        "epochs": 3,
        "lr": 1e-3,
        "min_lr": 1e-5,
        "warmup_epochs": 0.0,
        "compile": "off",
        "views": 2,
        "keep_every": None,
        "features": (FeatureTerm(), FeatureTerm(kind="mse", pairs=((0, 0),), match="projector")),
    }
    return DistillConfig(**{**values, **changes})


@pytest.fixture
def inputs(digits_folder: Path, context: Context) -> Inputs:
    return Inputs(data_record(str(digits_folder), context), teacher_record(context), student_record(context))


def counted_batches(patch: pytest.MonkeyPatch) -> list[int]:
    """How many images the teacher was asked about, batch by batch."""
    asked: list[int] = []
    real = distill_job.FrozenTeacher.forward

    def counted(self: Any, images: torch.Tensor) -> Any:
        asked.append(len(images))
        return real(self, images)

    patch.setattr(distill_job.FrozenTeacher, "forward", counted)
    return asked


@pytest.fixture
def teacher_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted_batches(monkeypatch)


@dataclass(frozen=True)
class First:
    """A training that filled the cache of its run."""

    context: Context
    inputs: Inputs
    record: DistillRecord
    teacher_batches: list[int]


@pytest.fixture(scope="module")
def first(module_context: Context, digits_folder: Path) -> First:
    """Of ``config()``. Not to be changed."""
    data, teacher = data_record(str(digits_folder), module_context), teacher_record(module_context)
    inputs = Inputs(data, teacher, student_record(module_context))
    with pytest.MonkeyPatch.context() as patch:
        asked = counted_batches(patch)
        return First(module_context, inputs, stage.run(config(), inputs, module_context), asked)


def said(context: Context) -> str:
    file: Any = context.console.file
    return str(file.getvalue())


def test_the_teacher_runs_once_a_view_and_not_at_all_the_second_time(
    first: First, copy_run: Callable[[Context], Context], teacher_batches: list[int]
) -> None:
    record, context = first.record, copy_run(first.context)
    assert record.cache is not None
    assert record.cache.views == 160
    assert sum(first.teacher_batches) == 160 + 1  # one to learn the shapes
    assert 0 < record.cache.bytes < 160 * (10 + 2 * 48 * 16) * 2 * 1.2
    assert record.cache.error < 2**-10
    again = stage.run(config(), first.inputs, replace(context, fingerprint="another"))
    assert teacher_batches == [1]
    assert again.identity() == record.identity()  # bit by bit: the weights' digest is in it
    assert "verified" in said(context)


def test_kept_answers_train_as_the_live_teacher_does(inputs: Inputs, context: Context) -> None:
    """Without augmentation every view is the image itself, so both trainings see the same."""
    kept = stage.run(config(views=1, augment=NO_AUGMENT), inputs, context)
    live = stage.run(config(views=0, augment=NO_AUGMENT), inputs, replace(context, fingerprint="live"))
    assert live.cache is None
    assert kept.losses.keys() == live.losses.keys()
    for name, value in live.losses.items():
        assert kept.losses[name] == pytest.approx(value, rel=2e-3), name
    assert kept.weights.sha256 != live.weights.sha256  # half precision is not float32


@pytest.mark.parametrize("change", [{"split_seed": 1}, {"val_fraction": 0.3}])
def test_rows_of_another_split_are_other_rows(
    first: First, copy_run: Callable[[Context], Context], teacher_batches: list[int], change: dict[str, Any]
) -> None:
    """The same folder digest, but position 7 of the training split is another image."""
    other = first.inputs.data.model_copy(update={"config": {**first.inputs.data.config, **change}})
    context = replace(copy_run(first.context), fingerprint="another")
    stage.run(config(), replace(first.inputs, data=other), context)
    assert sum(teacher_batches) > 100


def test_an_interrupt_while_a_complete_cache_is_verified_still_stops(
    first: First, copy_run: Callable[[Context], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = distill_job.fill

    def interrupted(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(distill_job, "fill", interrupted)
    with pytest.raises(RunInterrupted, match="teacher cache complete; the same command goes on"):
        stage.run(config(), first.inputs, replace(copy_run(first.context), fingerprint="another"))


def test_settings_that_nothing_uses_do_not_change_what_a_training_is() -> None:
    cache = CacheConfig(tap_error=0.1)
    assert config(views=0).identity() == config(views=0, cache=cache).identity()
    assert config().identity() != config(cache=cache).identity()
    alone: dict[str, Any] = {"alpha": 0.0, "features": ()}
    assert config(**alone).identity() == config(**alone, teacher_precision="bfloat16").identity()
    assert config().identity() != config(teacher_precision="bfloat16").identity()
    assert config().identity() == config(cache=CacheConfig(max_gb=1, folder="/elsewhere")).identity()


def test_runs_over_one_teacher_share_a_folder(
    inputs: Inputs, context: Context, tmp_path: Path, teacher_batches: list[int]
) -> None:
    shared = CacheConfig(folder=str(tmp_path / "shared"))
    stage.run(config(cache=shared), inputs, context)
    teacher_batches.clear()
    fewer = config(cache=shared, features=(FeatureTerm(),))
    stage.run(fewer, inputs, replace(context, fingerprint="another"))
    assert teacher_batches == [1]
    assert not (context.run.root / "cache").exists()


def test_a_student_alone_keeps_nothing(inputs: Inputs, context: Context, teacher_batches: list[int]) -> None:
    record = stage.run(config(alpha=0.0, features=()), inputs, context)
    assert record.cache is None
    assert teacher_batches == []


def test_too_little_room_is_told_before_anything_is_computed(
    inputs: Inputs, context: Context, teacher_batches: list[int]
) -> None:
    with pytest.raises(UsageError, match=r"distill\.cache\.max_gb = 0\.0001"):
        stage.run(config(cache=CacheConfig(max_gb=1e-4)), inputs, context)
    assert teacher_batches == [1]


def test_a_source_that_can_only_be_read_in_order_has_no_views(
    inputs: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = distill_job.recorded_images

    def streamed(record: Any) -> Any:
        found, images = real(record)
        items = [images.train[index] for index in range(4)]
        return found, Images(images.classes, StreamSplit(items, 4, 10), images.val, images.split)

    monkeypatch.setattr(distill_job, "recorded_images", streamed)
    with pytest.raises(UsageError, match=r"distill\.views is 2, but .* can only be read in order"):
        stage.run(config(), inputs, context)


@pytest.mark.sweep  # tests/stages/training has one compiled network
def test_compiled_networks_train_as_uncompiled_ones_do(inputs: Inputs, context: Context) -> None:
    settings = config(views=0, epochs=1)
    eager = stage.run(settings, inputs, context)
    compiled_run = stage.run(settings.model_copy(update={"compile": "on"}), inputs, replace(context, fingerprint="c"))
    for name, value in eager.losses.items():
        assert compiled_run.losses[name] == pytest.approx(value, rel=1e-3), name
    assert compiled_run.val_top1_raw == eager.val_top1_raw


def test_a_teacher_in_bfloat16_answers_nearly_alike(inputs: Inputs, context: Context) -> None:
    whole = stage.run(config(views=0, epochs=1), inputs, context)
    short = config(views=0, epochs=1, teacher_precision="bfloat16")
    half = stage.run(short, inputs, replace(context, fingerprint="bfloat16"))
    assert "the teacher computes in bfloat16" in said(context)
    for name, value in whole.losses.items():
        assert half.losses[name] == pytest.approx(value, rel=2e-2), name
    assert half.weights.sha256 != whole.weights.sha256
