"""The callback at the end of an epoch: keeping changes nothing, and no kill changes what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_training import assert_bitwise_equal, config, make_job

import vitcompress.stages.training.loop as loop
from vitcompress.core.context import Context
from vitcompress.stages.models import weights
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.training.callbacks.snapshots import KeepSnapshots
from vitcompress.stages.training.job import Trained

EPOCHS, STEPS = 4, 6
KEPT = [1, 2, 3]


class KilledError(BaseException):
    """Ends the process, as far as a test in one process can."""


def trained(context: Context, name: str, seconds: float = 60.0) -> tuple[Trained, dict[str, bytes]]:
    """A training that keeps every epoch, and the files that it kept."""
    root = context.run.root / name
    found = Snapshots(root, "mine", EPOCHS, 1)
    job = make_job(context, folder=root / "checkpoints")
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
