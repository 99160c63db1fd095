"""A trial in its own process: a run up to its export, with the teacher of an earlier trial where the settings are its.

How long an artifact takes is measured once no other trial trains: ``judge`` finishes the run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from vitcompress.core.files import references_in, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.processes import own_program
from vitcompress.core.rundir import SETTINGS_SHOWN, RunDirectory
from vitcompress.pipeline.api.arguments import COMMAND
from vitcompress.pipeline.config import RunConfig, with_absolute_paths
from vitcompress.pipeline.plan import BY_NAME
from vitcompress.pipeline.sweep.store import Sweep
from vitcompress.stages.images.sources import EMBEDDED

LAST = "export"
"""The last stage that trials carry out beside each other."""
_SHARED = ("data", "teacher", "analyze")
_LEFT_SECONDS = 180
"""For what a worker that died left behind: it stops by itself, once it has saved."""
_ENTRY = """sys.argv[0] = 'compress'
from vitcompress.pipeline.launch import end_with_launcher
end_with_launcher()
from vitcompress.__main__ import process
process()
"""


def start(sweep: Sweep, trial: Any, *, finish: bool, **environment: str) -> Popen[bytes]:
    """Start the process of a trial: up to its export, or to ``finish`` it. It ends with the process that started it."""
    (sweep.root / "logs").mkdir(exist_ok=True)
    words = ["run"] if finish else ["sweep", "trial"]
    with (sweep.root / "logs" / f"{trial.number:03d}.txt").open("ab") as log:
        return Popen(
            own_program(_ENTRY, *words, *sweep.words(trial)),
            env={**os.environ, **environment, COMMAND: shlex.join(["compress", "run", *sweep.words(trial)])},
            cwd=sweep.plan.folder,
            stdout=log,
            stderr=STDOUT,
            start_new_session=sys.platform != "win32",  # a terminal's interrupt reaches the worker, which hands it on
        )


def last_words(sweep: Sweep, trial: Any) -> str:
    """Return the last line that a trial's process printed."""
    lines = (sweep.root / "logs" / f"{trial.number:03d}.txt").read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def train(config: RunConfig, root: Path, command: str, console: Console) -> None:
    """Carry out the run at ``root`` up to its export; one trial trains a teacher, and those beside it wait for it.

    Raises as ``run_all``.
    """
    from vitcompress.pipeline.run import run_all

    config = with_absolute_paths(config)
    if root.is_dir():
        with suppress(Timeout), FileLock(root / ".lock", timeout=_LEFT_SECONDS):
            pass  # the run itself says that it is in use
    data, share = config.data, os.environ.get("OMP_NUM_THREADS")
    if share and config.workers == "auto" and data.source != EMBEDDED:
        config = config.model_copy(update={"workers": min(8, int(share))})  # of as many cores as the trial has
    key = fingerprint(data, data.augment, config.teacher, config.seed, config.image_size, config.geometry)
    donors = root.parent.parent / "teachers"
    donors.mkdir(exist_ok=True)
    donor = donors / key[:SETTINGS_SHOWN]
    with FileLock(donors / f"{donor.name}.lock"):
        source = root.parent / donor.read_text() if donor.is_file() else root
        if not (source / "state.json").is_file() or source == root:
            run_all(config, root, command, console, last=_SHARED[-1])
            write_atomic(donor, root.name)
        elif not (root / "state.json").is_file():
            _borrow(RunDirectory(source), root, config)
    run_all(config, root, command, console, last=LAST)


def _borrow(donor: RunDirectory, root: Path, config: RunConfig) -> None:
    """Give a new run what another made of images and teacher; what is not of its settings it makes again by itself."""
    from vitcompress.pipeline.config.decide import BEFORE_DATA
    from vitcompress.pipeline.config.facts import Facts
    from vitcompress.pipeline.config.rules import decide
    from vitcompress.pipeline.request import identity

    run = RunDirectory.claim(root, identity(decide(config, Facts(config), BEFORE_DATA)[0]))
    for name in _SHARED:
        record, state = donor.load_record(name, BY_NAME[name].record), donor.stage_state(name)
        for path in {reference.path for reference in references_in(record)}:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(donor.root / path, root / path)  # files of a run are replaced, never changed
            except OSError:
                shutil.copy2(donor.root / path, root / path)
        run.save_record(name, record)
        run.mark(
            name,
            "done",
            state["fingerprint"],
            **{key: state[key] for key in ("settings", "record", "seconds") if key in state},
        )
    for line in donor.metrics():
        if line["training"] == "teacher":
            run.append_metrics(line)


def held_out(run: RunDirectory) -> dict[int, float]:
    """Return the student's held-out score after each epoch that was judged, percent: raw or averaged, the better."""
    found: dict[int, float] = {}
    for line in run.metrics():
        scores = [line[name] for name in ("val_top1_raw", "val_top1_ema") if line.get(name) is not None]
        if line.get("training") == "student" and scores:
            found[line["epoch"]] = max(scores)
    return found
