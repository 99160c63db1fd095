"""A teacher stage in each process that torchrun starts: python -m torch.distributed.run ... FILE RUN DATA WEIGHTS."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from small_run import SETTLED, TEACHER, TEACHER_ARGS, data_record

from vitcompress.core.context import Context
from vitcompress.core.errors import LeftToMain
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.stage import Inputs, run

if __name__ == "__main__":
    state = PartialState(cpu=True)
    with state.main_process_first():
        root = Path(sys.argv[1])
        claimed = RunDirectory.claim(root, {"test": True}) if state.is_main_process else RunDirectory(root)
    context = Context(run=claimed, seed=0, device="cpu", fingerprint="f" * 64, console=Console(file=io.StringIO()))
    changes: dict[str, Any] = {
        **SETTLED, "model": TEACHER, "args": TEACHER_ARGS, "init": "file", "weights": sys.argv[3], "batch_size": 16,
        "lr": 1e-4, "min_lr": 1e-5, "warmup_epochs": 0.0, "epochs": 1, "tune_fraction": 0.3, "ema_decay": None,
    }  # fmt: skip
    settings = TeacherConfig(**changes)
    with suppress(LeftToMain):
        (root / "record.json").write_text(
            run(settings, Inputs(data_record(sys.argv[2], context)), context).model_dump_json()
        )
    state.wait_for_everyone()
    state.destroy_process_group()
