"""The hook at the end of an epoch: what it is given and when, and that no kill changes what is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from safetensors.torch import load, load_file
from tiny_training import Interrupting, config, cross_entropy, make_job, metrics
from torch import Tensor

import vitcompress.stages.training.loop as loop
from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.stages.models import weights
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.training.checkpoint import find_checkpoint
from vitcompress.stages.training.loop import Job, train

EPOCHS, STEPS = 4, 6
KEPT = [1, 2, 3]


class KilledError(BaseException):
    """Ends the process, as far as a test in one process can."""


def keeping(context: Context, name: str, loss: Any = cross_entropy, every: int = 1) -> tuple[Job, Snapshots]:
    root = context.run.root / name
    found = Snapshots(root, "mine", EPOCHS, every)
    return make_job(context, loss, folder=root / "checkpoints", keep=found.keep), found


def files(found: Snapshots) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in found.folder.iterdir()}


@pytest.fixture(scope="module")
def whole(module_context: Context) -> dict[str, bytes]:
    """The snapshots of an uninterrupted training."""
    job, found = keeping(module_context, "whole")
    train(job, config(), EPOCHS, module_context)
    assert sorted(files(found)) == [f"epoch-{epoch:04d}.safetensors" for epoch in KEPT]
    return files(found)


def test_it_is_given_the_raw_state_after_each_evaluation_and_before_the_checkpoint(context: Context) -> None:
    seen: list[tuple[int, dict[str, Tensor], Any]] = []

    def keep(epoch: int, state: dict[str, Tensor]) -> None:
        assert metrics(context)[-1]["epoch"] == epoch
        found = find_checkpoint(job.folder, "mine")
        seen.append((epoch, {name: value.clone() for name, value in state.items()}, found and found[1]))

    job = make_job(context, keep=keep)
    trained = train(job, config(checkpoint_seconds=0.0), EPOCHS, context)
    assert [epoch for epoch, _, _ in seen] == KEPT
    assert [(saved.epoch, saved.batches) for _, _, saved in seen] == [(epoch - 1, STEPS) for epoch in KEPT]
    assert trained.ema is not None
    assert seen[0][1].keys() == trained.raw.keys()
    states = [state for _, state, _ in seen] + [trained.raw]
    for one, next_one in pairwise(states):
        assert not torch.equal(one["body.1.weight"], next_one["body.1.weight"])


def test_keeping_changes_nothing_about_the_training(context: Context, tmp_path: Path) -> None:
    kept = train(keeping(context, "kept")[0], config(), EPOCHS, context)
    plain = train(make_job(context, folder=tmp_path / "plain"), config(), EPOCHS, context)
    assert all(torch.equal(kept.raw[name], plain.raw[name]) for name in plain.raw)
    assert (kept.top1_raw, kept.losses) == (plain.top1_raw, plain.losses)


def test_each_snapshot_is_what_a_training_stopped_there_has(
    context: Context, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint at the end of that epoch holds the same raw weights."""
    job, _ = keeping(context, "stopped")
    after_checkpoint(monkeypatch)
    with pytest.raises(KilledError):
        train(job, config(checkpoint_seconds=0.0), EPOCHS, context)
    found = find_checkpoint(job.folder, "mine")
    assert found is not None
    saved = load_file(found[0] / "model.safetensors")
    kept = load(whole["epoch-0002.safetensors"])
    assert kept.keys() == saved.keys()
    assert all(torch.equal(kept[name], saved[name]) for name in kept)


@pytest.mark.parametrize("at", [3, STEPS, STEPS + 1, 2 * STEPS, 3 * STEPS + 2])
def test_interrupted_and_resumed_keeps_the_same_bytes(context: Context, whole: dict[str, bytes], at: int) -> None:
    with pytest.raises(RunInterrupted):
        train(keeping(context, "resumed", Interrupting(at))[0], config(), EPOCHS, context)
    job, found = keeping(context, "resumed")
    train(job, config(), EPOCHS, context)
    assert files(found) == whole


def before(owner: Any, name: str, when: Callable[..., bool]) -> Callable[[pytest.MonkeyPatch], None]:
    """Die just before the first call of ``owner.name`` for which ``when`` holds."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if when(*arguments):
                raise KilledError
            return real(*arguments, **named)

        patch.setattr(owner, name, call)

    return arm


def after_checkpoint(patch: pytest.MonkeyPatch) -> None:
    real = loop.save_checkpoint

    def call(accelerator: Any, folder: Path, progress: Any, fingerprint: str) -> None:
        real(accelerator, folder, progress, fingerprint)
        if (progress.epoch, progress.batches) == (2, 0):
            raise KilledError

    patch.setattr(loop, "save_checkpoint", call)


MOMENTS = {
    "evaluating": before(loop.Training, "_evaluate", lambda training: training.progress.epoch == 2),
    "before the snapshot": before(weights, "write_atomic", lambda path, _: path.name == "epoch-0002.safetensors"),
    "between snapshot and checkpoint": before(
        loop, "save_checkpoint", lambda _, __, progress, *___: (progress.epoch, progress.batches) == (2, 0)
    ),
    "after the checkpoint": after_checkpoint,
    "in the next epoch": before(loop.Training, "step", lambda training, *_: training.progress.steps == 2 * STEPS + 2),
}


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [*((moment, 0.0) for moment in MOMENTS), ("evaluating", 60.0), ("in the next epoch", 60.0)],
)
def test_killed_around_the_end_of_an_epoch_keeps_the_same_bytes(
    context: Context, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, moment: str, seconds: float
) -> None:
    """With a checkpoint after each step, and with none at all, so that it starts again."""
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(KilledError):
            train(keeping(context, "killed")[0], config(checkpoint_seconds=seconds), EPOCHS, context)
    job, found = keeping(context, "killed")
    train(job, config(checkpoint_seconds=seconds), EPOCHS, context)
    assert files(found) == whole


def test_one_deleted_under_its_checkpoint_stays_missing_and_training_goes_on(
    context: Context, whole: dict[str, bytes]
) -> None:
    with pytest.raises(RunInterrupted):
        train(keeping(context, "resumed", Interrupting(STEPS + 1))[0], config(), EPOCHS, context)
    job, found = keeping(context, "resumed")
    found.path(1).unlink()
    train(job, config(), EPOCHS, context)
    assert found.missing() == [1]
    assert files(found) == {name: content for name, content in whole.items() if name != found.path(1).name}


def test_a_full_disk_stops_training_and_with_room_it_goes_on_to_the_same(
    context: Context, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, found = keeping(context, "full")
    real = weights.write_atomic

    def full(path: Path, content: bytes) -> None:
        if path.name == "epoch-0002.safetensors":
            raise OSError(28, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(weights, "write_atomic", full)
        with pytest.raises(UsageError, match="snapshot of the weights cannot be written"):
            train(job, config(checkpoint_seconds=0.0), EPOCHS, context)
    saved = find_checkpoint(job.folder, "mine")
    assert saved is not None
    assert saved[1].steps == 2 * STEPS  # nothing that was trained is lost
    counted = Interrupting(-1)
    job, found = keeping(context, "full", counted)
    train(job, config(), EPOCHS, context)
    assert counted.calls == 2 * STEPS
    assert files(found) == whole


def test_only_the_main_process_keeps(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def keep(epoch: int, state: dict[str, Tensor]) -> None:
        called.append(epoch)

    train(make_job(context, keep=keep), config(), 2, context)
    assert called == [1]
    monkeypatch.setattr(accelerate.Accelerator, "is_main_process", False)
    train(make_job(context, keep=keep, folder=context.run.root / "other"), config(), 2, context)
    assert called == [1]
