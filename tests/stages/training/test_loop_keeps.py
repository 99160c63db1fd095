"""The callback at the end of an epoch: what it is given and when, and that no kill changes what is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Interrupting, assert_bitwise_equal, config, cross_entropy, make_job, metrics
from torch import Tensor

import vitcompress.stages.training.loop as loop
from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.stages.models import weights
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.training.callbacks.snapshots import KeepSnapshots
from vitcompress.stages.training.checkpoint import find_checkpoint
from vitcompress.stages.training.job import Trained

EPOCHS, STEPS = 4, 6
KEPT = [1, 2, 3]


class KilledError(BaseException):
    """Ends the process, as far as a test in one process can."""


def trained(
    context: Context, name: str, loss: Any = cross_entropy, seconds: float = 60.0
) -> tuple[Trained, dict[str, bytes]]:
    """A training that keeps every epoch, and the files that it kept."""
    root = context.run.root / name
    found = Snapshots(root, "mine", EPOCHS, 1)
    job = make_job(context, loss, folder=root / "checkpoints")
    done = loop.train(job, config(checkpoint_seconds=seconds), EPOCHS, context, [KeepSnapshots(found.keep)])
    return done, {path.name: path.read_bytes() for path in found.folder.iterdir()}


@pytest.fixture(scope="module")
def whole(module_context: Context) -> dict[str, bytes]:
    """The snapshots of an uninterrupted training."""
    done, files = trained(module_context, "whole")
    plain = loop.train(
        make_job(module_context, folder=module_context.run.root / "plain"), config(), EPOCHS, module_context
    )
    assert_bitwise_equal(done, plain)  # keeping changes nothing
    assert sorted(files) == [f"epoch-{epoch:04d}.safetensors" for epoch in KEPT]
    return files


def test_it_is_given_the_raw_state_after_each_evaluation_and_before_the_checkpoint(context: Context) -> None:
    seen: list[tuple[int, dict[str, Tensor]]] = []

    def keep(epoch: int, state: dict[str, Tensor]) -> None:
        assert metrics(context)[-1]["epoch"] == epoch
        found = find_checkpoint(job.folder, "mine")
        assert found is not None
        assert (found[1].epoch, found[1].batches) == (epoch - 1, STEPS)
        saved = load_file(found[0] / "model.safetensors")
        assert all(torch.equal(state[name], saved[name]) for name in state)
        seen.append((epoch, {name: value.clone() for name, value in state.items()}))

    job = make_job(context)
    done = loop.train(job, config(checkpoint_seconds=0.0), EPOCHS, context, [KeepSnapshots(keep)])
    assert [epoch for epoch, _ in seen] == KEPT
    for one, next_one in pairwise([*(state for _, state in seen), done.raw]):
        assert not torch.equal(one["body.1.weight"], next_one["body.1.weight"])


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


MOMENTS = {
    "evaluating": before(loop.Training, "_evaluate", lambda training: training.progress.epoch == 2),
    "before the snapshot": before(weights, "write_atomic", lambda path, _: path.name == "epoch-0002.safetensors"),
    "between snapshot and checkpoint": before(
        loop, "save_checkpoint", lambda _, __, progress, *___: (progress.epoch, progress.batches) == (2, 0)
    ),
    "in the next epoch": before(loop.Training, "step", lambda training, *_: training.progress.steps == 2 * STEPS + 2),
}


@pytest.mark.parametrize(("moment", "seconds"), [*((moment, 0.0) for moment in MOMENTS), ("in the next epoch", 60.0)])
def test_killed_around_the_end_of_an_epoch_keeps_the_same_bytes(
    context: Context, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, moment: str, seconds: float
) -> None:
    """With a checkpoint after each step, and with none at all, so that it starts again."""
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(KilledError):
            trained(context, "killed", seconds=seconds)
    assert trained(context, "killed", seconds=seconds)[1] == whole


def test_a_full_disk_stops_training_and_with_room_it_goes_on_to_the_same(
    context: Context, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = weights.write_atomic

    def full(path: Path, content: bytes) -> None:
        if path.name == "epoch-0002.safetensors":
            raise OSError(28, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(weights, "write_atomic", full)
        with pytest.raises(UsageError, match="snapshot of the weights cannot be written"):
            trained(context, "full", seconds=0.0)
    counted = Interrupting(-1)
    assert trained(context, "full", counted)[1] == whole
    assert counted.calls == 2 * STEPS  # nothing that was trained is lost
