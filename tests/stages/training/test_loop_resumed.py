"""The training loop on a network of a few hundred weights: how it stops and how it goes on."""

from __future__ import annotations

import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from small_run import LIGHT_AUGMENT, SPEC, seeded_model, student_spec
from tiny_training import (
    Interrupting,
    assert_bitwise_equal,
    config,
    cross_entropy,
    make_job,
)
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted, UsageError
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import eval_loader, train_loader, train_views
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.training.checkpoint import find_checkpoint
from vitcompress.stages.training.interrupt import StopRequest, stop_on_signal
from vitcompress.stages.training.job import Job, Trained
from vitcompress.stages.training.loop import Training, train


@pytest.fixture(scope="module")
def whole(module_context: Context) -> Trained:
    """Three uninterrupted epochs."""
    return train(make_job(module_context), config(), 3, module_context)


@pytest.mark.parametrize("at", [3, 9, 12])
def test_interrupted_and_resumed_equals_uninterrupted_bit_by_bit(context: Context, whole: Trained, at: int) -> None:
    """Stopped in the first epoch, in the middle of the second, and at the last batch of the second (of three)."""
    with pytest.raises(RunInterrupted, match=rf"saved at step {at}; the same command goes on from there"):
        train(make_job(context, Interrupting(at)), config(), 3, context)
    resumed_loss = Interrupting(-1)
    resumed = train(make_job(context, resumed_loss), config(), 3, context)
    assert resumed_loss.calls == 18 - at  # what was done is not done again
    assert_bitwise_equal(resumed, whole)


class Normed(nn.Module):
    """A small CNN with batch norms; in its second batch, if ``spoilt``, it computes what is not finite."""

    def __init__(self, *, spoilt: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 2))
        self.end = nn.Sequential(nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 3))
        self.spoilt, self.batches = spoilt, 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += self.training
        found: Tensor = self.features(x * (math.inf if self.spoilt and self.training and self.batches == 2 else 1.0))
        out: Tensor = self.end(found)
        return out


def test_the_statistics_of_batch_norms_resume_and_are_averaged_bit_by_bit(context: Context, tmp_path: Path) -> None:
    def job(loss: Any, **changes: Any) -> Job:
        torch.manual_seed(0)
        return make_job(context, loss, **{"model": Normed(), **changes})

    whole = train(job(cross_entropy, folder=tmp_path / "whole"), config(), 3, context)
    with pytest.raises(RunInterrupted):
        train(job(Interrupting(9)), config(), 3, context)
    assert_bitwise_equal(train(job(cross_entropy), config(), 3, context), whole)
    raw, averaged = (state["features.1.running_mean"] for state in (whole.raw, whole.ema or {}))
    assert float(raw.abs().max()) > 0
    assert not torch.equal(raw, averaged)


def test_a_batch_that_is_not_finite_leaves_the_statistics_of_batch_norms(context: Context) -> None:
    torch.manual_seed(0)
    found = train(make_job(context, model=Normed(spoilt=True)), config(), 1, context)
    assert all(bool(value.isfinite().all()) for value in found.raw.values())
    assert all(bool(value.isfinite().all()) for value in (found.ema or {}).values())


def test_the_pace_of_a_resumed_training_is_that_of_the_steps_since(context: Context) -> None:
    """Slow steps are read, and several processes agree to stop, one by one, however many there were before."""
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(9)), config(), 3, context)
    resumed = Training(make_job(context), config(log_every=100), 3, context)
    resumed._resume()
    resumed.progress.steps += 1
    resumed.read_at -= 8  # seconds that this step took
    resumed._settle(StopRequest())
    assert resumed.read_next == resumed.progress.steps + 1


def test_interrupted_between_accumulated_batches(context: Context, tmp_path: Path) -> None:
    """The gradients of half a step are in no checkpoint: the step must be finished before stopping."""
    settings = config(accumulation=2)

    def job(loss: Any, **changes: Any) -> Job:
        return make_job(context, loss, batch=4, **changes)

    whole = train(job(cross_entropy, folder=tmp_path / "whole"), settings, 2, context)
    with pytest.raises(RunInterrupted):
        train(job(Interrupting(3)), settings, 2, context)
    resumed = train(job(cross_entropy), settings, 2, context)
    assert_bitwise_equal(resumed, whole)


def vit_job(digits: Path, workers: int, loss: Any, folder: Path) -> Job:
    images = open_images(DataConfig(source=str(digits)))
    spec = student_spec("lift-kept")
    model = seeded_model(spec.model_copy(update={"args": {**spec.args, "proj_drop_rate": 0.1, "drop_path_rate": 0.1}}))
    train_batches = train_loader(
        train_views(images.train, LIGHT_AUGMENT, SPEC, 0), batch_size=16, seed=0, workers=workers
    )
    val = eval_loader(images.val, SPEC, batch_size=16, workers=0)
    return Job("vit", model, lambda trained: trained, loss, train_batches, val, folder, "mine")


def test_a_vision_transformer_with_augmentation_resumes_bit_by_bit(
    context: Context, digits_folder: Path, tmp_path: Path
) -> None:
    """Also with loader processes, where the uninterrupted training had none."""

    def job(loss: Any, workers: int = 2) -> Job:
        return vit_job(digits_folder, workers, loss, tmp_path / f"{workers} workers")

    settings = config(lr=1e-3)
    whole = train(job(cross_entropy, workers=0), settings, 2, context)
    with pytest.raises(RunInterrupted):
        train(job(Interrupting(7)), settings, 2, context)
    assert_bitwise_equal(train(job(cross_entropy), settings, 2, context), whole)


def test_checkpoints_replace_each_other_and_incomplete_ones_are_ignored(context: Context) -> None:
    job = make_job(context, Interrupting(5))
    with pytest.raises(RunInterrupted):
        train(job, config(checkpoint_seconds=0.0), 1, context)
    assert [entry.name for entry in (job.folder / "mine").iterdir()] == ["step-00000005-000005"]
    whole = job.folder / "mine" / "step-00000005-000005"
    shutil.copytree(whole, job.folder / "mine" / "step-00000006-000006")
    (job.folder / "mine" / "step-00000006-000006" / "progress.json").unlink()
    shutil.copytree(whole, job.folder / "mine" / "step-00000007-000007")
    (job.folder / "mine" / "step-00000007-000007" / "progress.json").write_text('{"fingerprint": "mi')
    shutil.copytree(whole, job.folder / "mine" / ".step-00000008-000008")
    found = find_checkpoint(job.folder, "mine")
    assert found is not None
    assert found[0] == whole
    assert (found[1].epoch, found[1].batches, found[1].steps) == (0, 5, 5)
    assert found[1].seconds > 0
    assert find_checkpoint(job.folder, "another") is None
    assert find_checkpoint(job.folder / "gone", "mine") is None


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    import vitcompress.stages.training.checkpoint as checkpoint

    job = make_job(context)
    real, flushed = checkpoint._flush, []

    def full(folder: Path) -> None:
        flushed.append(folder)
        if len(flushed) == 3:
            raise SafetensorError("I/O error: No space left on device")
        real(folder)

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(UsageError, match=r"checkpoint cannot be written to .*make room on its disk"):
        train(job, config(checkpoint_seconds=0.0), 1, context)
    found = find_checkpoint(job.folder, "mine")
    assert found is not None
    assert found[1].steps == 2


def test_a_checkpoint_of_another_fingerprint_is_not_resumed(context: Context, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(5)), config(), 1, context)
    counted = Interrupting(-1)
    restarted = train(make_job(context, counted, fingerprint="other"), config(), 1, context)
    assert counted.calls == 6
    assert_bitwise_equal(restarted, train(make_job(context, folder=tmp_path / "fresh"), config(), 1, context))
    assert find_checkpoint(make_job(context).folder, "mine") is not None  # going back finds it


def test_what_fails_after_a_request_is_an_interruption() -> None:
    """A signal to the group ended a compiler that the step waited for."""

    def failing(error: Exception, *, asked: bool = True) -> None:
        with stop_on_signal():
            if asked:
                os.kill(os.getpid(), signal.SIGTERM)
            raise error

    with pytest.raises(RunInterrupted, match=r"\(g\+\+ was terminated\); the same command goes on from the last"):
        failing(RuntimeError("g++ was terminated\nand a page more"))
    with pytest.raises(ResultError, match="not finite"):
        failing(ResultError("the loss is not finite"))
    with pytest.raises(RuntimeError, match="ours"):
        failing(RuntimeError("ours"), asked=False)
