"""Run `compress` and have the kernel end it without warning: ``start(["POINT[:COUNT]", "run", ...])``.

POINT is a moment of writing or training named below; COUNT says at which passing of it. `never` runs to the end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import accelerate.checkpointing

import vitcompress.stages.distill.cache.store
import vitcompress.stages.models.weights
import vitcompress.stages.training.checkpoint
import vitcompress.stages.training.loop
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline import runner
from vitcompress.pipeline.cli import main

left = 1


def here() -> None:
    """This moment was reached."""
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *arguments: True) -> None:
    """Make calls of ``owner.name`` the moment."""
    real = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            here()
        return real(*arguments, **named)

    setattr(owner, name, call)


def start(words: list[str]) -> None:
    """Arm the moment, then run the command line that follows it."""
    global left
    point, _, count = words[0].partition(":")
    left = int(count or 1)
    if point == "step":  # between two optimizer steps
        before(vitcompress.stages.training.loop.Training, "step")
    elif point == "writing":  # some files of a checkpoint are there, others not
        before(accelerate.checkpointing, "save")
    elif point == "written":  # all are, and the rename that makes them count is not
        before(vitcompress.stages.training.checkpoint, "_flush")
    elif point == "replacing":  # the new checkpoint counts, the old one is not yet gone
        before(vitcompress.stages.training.checkpoint.shutil, "rmtree", lambda path, *_, **__: "/.old-" in str(path))
    elif point == "caching":  # some files of the teacher cache are there
        before(vitcompress.stages.distill.cache.store.Store, "commit")
    elif point == "evaluating":
        before(vitcompress.stages.training.loop, "predict_each")
    elif point == "kept":  # a snapshot of the student is there, and the checkpoint that covers its epoch is not
        before(
            vitcompress.stages.training.loop,
            "save_checkpoint",
            lambda _, folder, progress, __: folder.name == "student" and progress.batches == 0,
        )
    elif point == "weights":
        before(vitcompress.stages.models.weights, "write_atomic", lambda path, _: path.parent.name == "student")
    elif point == "recorded":  # the stage's record is written, and the state does not know
        before(RunDirectory, "mark", lambda _, stage, status, *__: (stage, status) == ("distill", "done"))
    elif point == "fold":  # nothing is left that this is about
        before(runner, "carry_out", lambda _, stage, *__: stage.name == "fold")
    elif point != "never":
        raise SystemExit(f"unknown point {point}")
    main(words[1:])
