"""Distillation from kept answers of the teacher: what the student sees, and that the teacher runs once a view."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_run import config, given
from small_run import NO_AUGMENT, said

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.records import DistillRecord
from vitcompress.stages.distill import job as distill_job
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import FeatureTerm
from vitcompress.stages.distill.job import Inputs
from vitcompress.stages.images.sources import Images, StreamSplit

FEATURES = (FeatureTerm(), FeatureTerm(kind="mse", pairs=((0, 0),), match="projector"))
SETTINGS = config(views=2, batch_size=16, epochs=3, features=FEATURES)


def changed(**changes: Any) -> Any:
    return SETTINGS.model_copy(update=changes)


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


@pytest.fixture(scope="module")
def shared_inputs(module_context: Context, digits_folder: Path) -> Inputs:
    return given(module_context, digits_folder)


@pytest.fixture(scope="module")
def first(module_context: Context, shared_inputs: Inputs) -> tuple[DistillRecord, list[int]]:
    """A training of ``SETTINGS`` that filled the cache of its run, and what the teacher was asked."""
    with pytest.MonkeyPatch.context() as patch:
        asked = counted_batches(patch)
        return stage.run(SETTINGS, shared_inputs, module_context), asked


@pytest.fixture
def later(first: tuple[DistillRecord, list[int]], copied_context: Context) -> Context:
    """That run for a training of another fingerprint."""
    return replace(copied_context, fingerprint="another")


def test_the_teacher_runs_once_a_view_and_not_at_all_the_second_time(
    first: tuple[DistillRecord, list[int]], shared_inputs: Inputs, later: Context, teacher_batches: list[int]
) -> None:
    record, asked = first
    assert record.cache is not None
    assert record.cache.views == 160
    assert sum(asked) == 160 + 1  # one to learn the shapes
    assert 0 < record.cache.bytes < 160 * (10 + 2 * 48 * 16) * 2 * 1.2
    again = stage.run(SETTINGS, shared_inputs, later)
    assert teacher_batches == [1]
    assert again.identity() == record.identity()  # bit by bit: the weights' digest is in it
    assert "verified" in said(later)


def test_kept_answers_train_as_the_live_teacher_does(inputs: Inputs, context: Context) -> None:
    """Without augmentation every view is the image itself, so both trainings see the same."""
    kept = stage.run(changed(views=1, augment=NO_AUGMENT), inputs, context)
    live = stage.run(changed(views=0, augment=NO_AUGMENT), inputs, replace(context, fingerprint="live"))
    assert live.cache is None
    assert kept.losses == pytest.approx(live.losses, rel=2e-3)
    assert kept.weights.sha256 != live.weights.sha256  # half precision is not float32


@pytest.mark.parametrize("views", [0, 1])
def test_pixels_normalised_on_the_device_train_to_the_same_weights(
    inputs: Inputs, context: Context, views: int
) -> None:
    device = NO_AUGMENT.model_copy(update={"normalize_on": "device"})
    usual = stage.run(changed(views=views, augment=NO_AUGMENT), inputs, context)
    later = stage.run(changed(views=views, augment=device), inputs, replace(context, fingerprint="later"))
    assert later.weights.sha256 == usual.weights.sha256
    assert later.val_top1_raw == usual.val_top1_raw


def test_rows_of_another_split_are_other_rows(
    shared_inputs: Inputs, later: Context, teacher_batches: list[int]
) -> None:
    """The same folder digest, but position 7 of the training split is another image."""
    data = shared_inputs.data
    other = data.model_copy(update={"config": {**data.config, "split_seed": 1}})
    stage.run(SETTINGS, replace(shared_inputs, data=other), later)
    assert sum(teacher_batches) > 100


def test_an_interrupt_while_a_complete_cache_is_verified_still_stops(
    shared_inputs: Inputs, later: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = distill_job.fill

    def interrupted(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(distill_job, "fill", interrupted)
    with pytest.raises(RunInterrupted, match="with 0 files of the teacher cache to compute; the same command goes on"):
        stage.run(SETTINGS, shared_inputs, later)


def test_a_source_that_can_only_be_read_in_order_has_no_views(
    inputs: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = distill_job.judged_images

    def streamed(*given: Any) -> Any:
        found, images = real(*given)
        items = [images.train[index] for index in range(4)]
        return found, Images(images.classes, StreamSplit(items, 4, 10), images.val, images.split)

    monkeypatch.setattr(distill_job, "judged_images", streamed)
    with pytest.raises(UsageError, match=r"distill\.views is 2, but .* can only be read in order"):
        stage.run(SETTINGS, inputs, context)


def test_a_teacher_in_bfloat16_trains_nearly_alike(inputs: Inputs, context: Context) -> None:
    short = changed(views=0, epochs=1)
    whole = stage.run(short, inputs, context)
    half = short.model_copy(update={"teacher_precision": "bfloat16"})
    other = stage.run(half, inputs, replace(context, fingerprint="other"))
    assert other.losses == pytest.approx(whole.losses, rel=2e-2)
    assert other.weights.sha256 != whole.weights.sha256
