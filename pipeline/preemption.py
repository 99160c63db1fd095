"""A machine that is taken away: SIGUSR1 at any moment of a run, and SLURM's requeue of the job (torch-free)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from vitcompress.core.errors import RunPreempted
from vitcompress.core.processes import rank
from vitcompress.core.signals import PREEMPTING, on_request


class _Preempted(KeyboardInterrupt):
    """SIGUSR1 outside of a training, which would have saved first."""


@contextmanager
def preemptible(requeue: bool, console: Console) -> Iterator[None]:
    """Turn a SIGUSR1 within the block into a RunPreempted; ``requeue``: the main process then requeues its SLURM job.

    That ends the job, so it comes when the block has ended, with its checkpoint and its mirror.
    """

    def preempt() -> None:
        raise _Preempted

    try:
        with on_request(preempt, PREEMPTING):
            yield
    except (_Preempted, RunPreempted) as error:
        job = os.environ.get("SLURM_JOB_ID")
        if job and "SLURM_ARRAY_JOB_ID" in os.environ:  # of an array, this task alone
            job = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
        if requeue and job and not rank():
            said = f"requeued SLURM job {job}"
            try:
                words = ["scontrol", "requeue", job]
                subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
            except (OSError, subprocess.SubprocessError) as failed:
                reason = (getattr(failed, "stderr", None) or str(failed)).strip()
                said = f"warning: SLURM job {job} could not be requeued ({reason}); submit it again"
            console.print(said, highlight=False, markup=False, soft_wrap=True)
        if isinstance(error, RunPreempted):
            raise
        raise RunPreempted("stopped by SIGUSR1; the same command goes on from what is saved.") from error
