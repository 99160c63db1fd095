"""A teacher stage in each process that torchrun starts: python -m torch.distributed.run ... FILE RUN DATA WEIGHTS."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path

from accelerate import PartialState
from rich.console import Console
from small_run import data_record
from teacher_run import config

from vitcompress.core.context import Context
from vitcompress.core.errors import LeftToMain
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.teacher.stage import Inputs, run

if __name__ == "__main__":
    state = PartialState(cpu=True)
    with state.main_process_first():
        root = Path(sys.argv[1])
        claimed = RunDirectory.claim(root, {"test": True}) if state.is_main_process else RunDirectory(root)
    context = Context(run=claimed, seed=0, device="cpu", fingerprint="f" * 64, console=Console(file=io.StringIO()))
    settings = config(init="file", weights=sys.argv[3], batch_size=16, lr=1e-4, epochs=1, tune_fraction=0.3)
    with suppress(LeftToMain):
        (root / "record.json").write_text(
            run(settings, Inputs(data_record(sys.argv[2], context)), context).model_dump_json()
        )
    state.wait_for_everyone()
    state.destroy_process_group()
