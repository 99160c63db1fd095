"""Run `compress` and have the whole process group signalled: ``start(["POINT", "SIGNAL[,SIGNAL...]", "run", ...])``.

POINT is a moment named below. Signals come from outside the group, as from `timeout`, systemd or a terminal: to this
process and to every loader process of it. Between two of them, `later` lets the time of an echo pass.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from os import getpgrp
from typing import Any

import vitcompress.stages.data.stage
import vitcompress.stages.distill.cache.store
import vitcompress.stages.training.loop
import vitcompress.stages.verify.held_out
from vitcompress.__main__ import process
from vitcompress.pipeline import runner

signals = ""
reached = False


def here() -> None:
    """This moment was reached for the first time."""
    global reached
    if reached:
        return
    reached = True
    for signal in signals.split(","):
        if signal == "later":
            time.sleep(1.2)
        else:
            subprocess.run(["/bin/kill", "-s", signal, "--", f"-{getpgrp()}"], start_new_session=True, check=True)


def at(
    count: int, owner: Any, name: str, when: Callable[..., bool] = lambda *arguments: True, *, begin: bool = False
) -> None:
    """Make the end (or the beginning) of the ``count``-th call of ``owner.name`` the moment."""
    real, seen = getattr(owner, name), 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += bool(when(*arguments))
        if begin and seen == count:
            here()
        result = real(*arguments, **named)
        if seen == count:
            here()
        return result

    setattr(owner, name, call)


def start(words: list[str]) -> None:
    """Arm the moment, then run the command line that follows it."""
    global signals
    point, signals = words[:2]
    if point in ("teacher", "student"):  # fitting the teacher, distilling
        at(3, vitcompress.stages.training.loop.Training, "step", lambda training, *_: training.job.name == point)
    elif point == "caching":  # the teacher's answers are computed
        at(1, vitcompress.stages.distill.cache.store.Store, "commit")
    elif point == "verifying":  # held-out images are loaded and asked about
        at(2, vitcompress.stages.verify.held_out.Answers, "of")
    elif point == "fold":  # no training, no loader
        at(1, runner, "carry_out", lambda _, stage, *__: stage.name == "fold", begin=True)
    elif point != "never":
        raise SystemExit(f"unknown point {point}")

    sys.argv = ["compress", *words[2:]]
    process()
