"""Run `compress`, and at a moment kill it or signal its process group: ``start(["POINT[:COUNT]", "SIGNALS", "run"])``.

POINT is named below; COUNT says at which passing of it; `never` runs to the end. SIGNALS is `KILL`, by which the kernel
ends this process without warning; or what comes from outside to the whole group, loader processes included, as
from `timeout`, systemd or a terminal: `TERM`, `INT,later,INT`. `later` lets the time of an echo pass.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import accelerate.checkpointing

import vitcompress.stages.distill.cache.store
import vitcompress.stages.judging.answers
import vitcompress.stages.models.weights
import vitcompress.stages.training.checkpoint
import vitcompress.stages.training.loop
from vitcompress.__main__ import process
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline import runner

stages = vitcompress.stages
left = 1
signals = ""


def here() -> None:
    """This moment was reached."""
    global left
    left -= 1
    if left != 0:
        return
    if signals == "KILL":
        os.kill(os.getpid(), signal.SIGKILL)
    for one in signals.split(","):
        if one == "later":
            time.sleep(1.2)
        else:
            words = ["/bin/kill", "-s", one, "--", f"-{os.getpgrp()}"]
            subprocess.run(words, start_new_session=True, check=True)


def before(owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Make calls of ``owner.name`` the moment."""
    real = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            here()
        return real(*arguments, **named)

    setattr(owner, name, call)


def every(*_: Any, **__: Any) -> bool:
    return True


MOMENTS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    # between two optimizer steps of that training, or of any
    "teacher": (stages.training.loop.Training, "step", lambda training, *_: training.job.name == "teacher"),
    "student": (stages.training.loop.Training, "step", lambda training, *_: training.job.name == "student"),
    "step": (stages.training.loop.Training, "step", every),
    # some files of a checkpoint are there, others not
    "writing": (accelerate.checkpointing, "save", every),
    # all are, and the rename that makes them count is not
    "written": (stages.training.checkpoint, "_flush", every),
    # the new checkpoint counts, the old one is not yet gone
    "replacing": (stages.training.checkpoint.shutil, "rmtree", lambda path, *_, **__: "/.old-" in str(path)),
    # some files of the teacher cache are there
    "caching": (stages.distill.cache.store.Store, "commit", every),
    "evaluating": (stages.training.loop, "predict_each", every),
    # a snapshot of the student is there, and the checkpoint that covers its epoch is not
    "kept": (
        stages.training.loop,
        "save_checkpoint",
        lambda _, folder, progress, __: folder.name == "student" and progress.batches == 0,
    ),
    "weights": (stages.models.weights, "write_atomic", lambda path, _: path.parent.name == "student"),
    # the stage's record is written, and the state does not know
    "recorded": (RunDirectory, "mark", lambda _, stage, status, *__: (stage, status) == ("distill", "done")),
    # no training, no loader
    "fold": (runner, "carry_out", lambda _, stage, *__: stage.name == "fold"),
    # held-out images are loaded and asked about
    "verifying": (stages.judging.answers.Answers, "of", every),
}


def start(words: list[str]) -> None:
    """Arm the moment, then run the command line that follows it."""
    global left, signals
    point, _, count = words[0].partition(":")
    left, signals = int(count or 1), words[1]
    if point != "never":
        before(*MOMENTS[point])
    sys.argv = ["compress", *words[2:]]
    process()
