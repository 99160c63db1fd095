"""A training in each of several processes: python FILE FOLDER, with torch's variables of a process."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from reading_guard import guarded
from rich.console import Console
from test_not_finite import States, poisoned
from tiny_training import config, make_job

from vitcompress.core.context import Context
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.training.loop import train

if __name__ == "__main__":
    state = PartialState(cpu=True)
    with state.main_process_first():
        root = Path(sys.argv[1]) / "run"
        claimed = RunDirectory.claim(root, {"test": True}) if state.is_main_process else RunDirectory(root)
    context = Context(run=claimed, seed=0, device="cpu", console=Console(file=io.StringIO()), rank=state.process_index)
    states, at = States(), {3} if state.process_index else set[int]()
    with pytest.MonkeyPatch.context() as patch:
        waiting = guarded(patch)
        trained = train(make_job(context, poisoned(at, "nan")), config(), 2, context, [states])
    pairs = zip(states.found, states.found[1:], strict=False)
    found = {
        "unchanged": [step for step, pair in enumerate(pairs, 2) if all(map(torch.equal, *pair))],
        "weights": hashlib.sha256(b"".join(value.numpy().tobytes() for value in trained.raw.values())).hexdigest(),
        "losses": trained.losses,
        "steps": waiting.steps,
        "skipped": trained.progress.skipped,
        "first_skipped": trained.progress.first_skipped,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    state.destroy_process_group()
