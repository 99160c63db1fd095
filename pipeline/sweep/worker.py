"""Keeps trials at work: claims them from the study, prunes the hopeless, tells the study how they ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import Popen, TimeoutExpired
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from vitcompress.core.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import DistillRecord, StudentRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.api.arguments import assignments
from vitcompress.pipeline.machine import threads_each
from vitcompress.pipeline.sweep.space import distribution, import_optuna
from vitcompress.pipeline.sweep.store import Sweep
from vitcompress.pipeline.sweep.trial import held_out, last_words, start

_POLL_SECONDS = 1.0
_STOPPING_SECONDS = 120.0
"""Between asking a trial to save and stop, and ending it."""
_STOPPED = (EXIT_INTERRUPTED, EXIT_PREEMPTED, -signal.SIGTERM, -signal.SIGINT)
"""What a trial ends with that was asked to stop, and saved what it had."""
STARTUP = 4
"""Comparable trials, at least, whose median decides whether one is pruned."""


@dataclass
class Slot:
    """A trial at work."""

    trial: Any
    lock: FileLock
    place: int
    """From 0; decides which GPU it gets."""
    process: Popen[bytes]
    epoch: int = 0
    """The last at which it was looked at."""
    pruned: str = ""


class Worker:
    """Trains trials of a sweep, ``parallel`` at once; none begins after ``minutes``."""

    def __init__(self, sweep: Sweep, parallel: int, minutes: float | None, console: Console) -> None:
        self.sweep, self.parallel, self.console = sweep, parallel, console
        self.deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self.slots: list[Slot] = []
        self.gpus = _gpus(sweep.plan.config.get("device", "auto")) if parallel else ()

    def work(self, *, until_all: bool) -> None:
        """Train until nothing is left to claim and, ``until_all``, other workers are done; stopped, trials save."""
        try:
            self._fill()
            while self.slots or (until_all and self.sweep.left and time.monotonic() < self.deadline):
                time.sleep(_POLL_SECONDS)
                for slot in tuple(self.slots):
                    self._look(slot)
                self._fill()
        finally:
            self._stop()

    def _fill(self) -> None:
        with self.sweep.lock("claims"):
            while len(self.slots) < self.parallel and time.monotonic() < self.deadline and (found := self._claim()):
                self._begin(*found)

    def _claim(self) -> tuple[Any, FileLock] | None:
        """Return a trial whose worker is gone, else a new one; None where there are no more."""
        study, trials = self.sweep.study, self.sweep.trials()
        own = [slot.trial.number for slot in self.slots]
        for trial in (one for one in trials if one.state.name == "RUNNING" and one.number not in own):
            lock = self.sweep.lock(f"{trial.number:03d}")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return trial, lock
        waiting = any(one.state.name == "WAITING" for one in trials)  # queued by a worker that died at once
        untried = self.sweep.untried()
        if not waiting and (len(trials) >= self.sweep.plan.trials or untried == []):
            return None
        # Of its number, or a sweep that goes on would draw what it began with once more.
        seed = int(fingerprint(self.sweep.plan.seed, len(trials))[:8], 16)
        study.sampler = import_optuna().samplers.TPESampler(seed=seed)
        if untried and not waiting:
            study.enqueue_trial(untried[0])
        number = study.ask({name: distribution(each) for name, each in self.sweep.plan.space.items()}).number
        lock = self.sweep.lock(f"{number:03d}")
        lock.acquire()
        return self.sweep.trials()[number], lock

    def _begin(self, trial: Any, lock: FileLock) -> None:
        place = min(set(range(self.parallel)) - {slot.place for slot in self.slots})
        share = {"OMP_NUM_THREADS": str(threads_each(self.parallel))} if self.parallel > 1 else {}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        verb = "goes on" if self.sweep.run(trial).state_path.is_file() else "begins"
        self.slots.append(Slot(trial, lock, place, start(self.sweep, trial, finish=False, **share)))
        self._line(trial, f"{verb}: {', '.join(assignments(self.sweep.settings(trial)))}")

    def _look(self, slot: Slot) -> None:
        code = slot.process.poll()
        if code is None:
            if not slot.pruned and (why := self._hopeless(slot)):
                slot.pruned = why
                slot.process.terminate()
            return
        states, tell = import_optuna().trial.TrialState, self.sweep.study.tell
        if code == 0:
            score, macs = outcome(self.sweep.run(slot.trial))
            tell(slot.trial.number, [score, macs])
            told = f"trained: {score:.2f} % held out, {macs / 1e6:.4g} M operations"
        elif slot.pruned:
            tell(slot.trial.number, state=states.PRUNED)
            told = slot.pruned
        elif code in _STOPPED:  # not by this worker: a scheduler signals every process of a job
            told = f"was stopped (exit code {code}); it is left to be claimed again"
        else:
            tell(slot.trial.number, state=states.FAIL)
            told = f"failed (exit code {code}): {last_words(self.sweep, slot.trial)}"
        self._line(slot.trial, told)
        self._release(slot)

    def _hopeless(self, slot: Slot) -> str:
        """Return why a trial is pruned: Optuna's median rule among trials of as many epochs and no more operations.

        A faster student that is less accurate may be worth having, so a slower one is never its measure.
        """
        run = self.sweep.run(slot.trial)
        curve = held_out(run)
        if not curve or max(curve) == slot.epoch:
            return ""
        slot.epoch, epochs = max(curve), _epochs(run)
        optuna, macs = import_optuna(), run.load_record("student", StudentRecord).cost.macs
        beside, create = optuna.create_study(direction="maximize"), optuna.trial.create_trial
        for one in self.sweep.trials("COMPLETE"):
            other = self.sweep.run(one)
            if one.values[1] <= macs and _epochs(other) == epochs:
                beside.add_trial(create(value=one.values[0], intermediate_values=held_out(other)))
        now = create(state=optuna.trial.TrialState.RUNNING, intermediate_values=curve)
        if not optuna.pruners.MedianPruner(STARTUP, epochs // 4).prune(beside, now):
            return ""
        return f"pruned after epoch {slot.epoch} of {epochs}: {max(curve.values()):.2f} % at best, below the median"

    def _release(self, slot: Slot) -> None:
        slot.lock.release()
        self.slots.remove(slot)

    def _stop(self) -> None:
        """Ask the trials that are left to save and stop, and wait for them."""
        for slot in self.slots:
            slot.process.terminate()
        deadline = time.monotonic() + _STOPPING_SECONDS
        for slot in tuple(self.slots):
            try:
                slot.process.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutExpired:
                slot.process.kill()
            self._release(slot)

    def _line(self, trial: Any, text: str) -> None:
        self.console.print(f"{trial.number:03d}      {text}", highlight=False, markup=False, soft_wrap=True)


def outcome(run: RunDirectory) -> tuple[float, int]:
    """Return what a trained trial is searched by: its student's held-out score, percent, and operations of an image."""
    found = run.load_record("distill", DistillRecord)
    score = found.val_top1_ema if found.chosen == "ema" else found.val_top1_raw
    return float(score or 0.0), run.load_record("student", StudentRecord).cost.macs


def _epochs(run: RunDirectory) -> int:
    return int(run.state()["resolved"]["distill"]["epochs"])


def _gpus(device: str) -> Sequence[str]:
    """Return the GPUs for trials, as CUDA_VISIBLE_DEVICES names them; none where they train on the CPU."""
    if device == "cpu":
        return ()
    import torch

    found = list(map(str, range(torch.cuda.device_count())))
    return os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(found)).split(",")[: len(found)]
