"""A training with every habit in each of several processes: python FILE FOLDER, with torch's variables of a process."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from tiny_training import Tiny, config, make_job
from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.models.trainable import prepare
from vitcompress.stages.training.callbacks.early import EarlyStop
from vitcompress.stages.training.job import Trained
from vitcompress.stages.training.loop import Training


class Again(Tiny):
    """Whose first layers can be computed again; without dropout, which draws others in each process."""

    def __init__(self) -> None:
        super().__init__()
        self.body[3] = nn.Identity()

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Wrap the first linear layer."""
        first, again = self.body[1], torch.utils.checkpoint.checkpoint
        forward = first.forward
        first.forward = lambda x: again(forward, x, use_reentrant=False)  # type: ignore[method-assign]


def trained(context: Context, folder: Path) -> tuple[Trained, float]:
    settings = config(
        optimizer="sgd", lr=0.05, freeze=("body.4.bias",), grad_checkpointing=True, scheduler="plateau",
        scheduler_args={"patience_epochs": 0.5, "decay_rate": 0.1}, ema_decay=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Again()
    prepare(model, settings, "distill")
    training = Training(
        make_job(context, model=model, folder=folder), settings, 8, context, [EarlyStop("classification", 2)]
    )
    return training.run(), training.callbacks[-1].saved.counts["factor"]


if __name__ == "__main__":
    state = PartialState(cpu=True)
    with state.main_process_first():
        root = Path(sys.argv[1]) / "run"
        claimed = RunDirectory.claim(root, {"test": True}) if state.is_main_process else RunDirectory(root)
    context = Context(run=claimed, seed=0, device="cpu", console=Console(file=io.StringIO()), rank=state.process_index)
    found, factor = trained(context, root / "checkpoints")
    weights = {name: value.tolist() for name, value in found.raw.items()}
    sys.stdout.write(json.dumps({"epoch": found.progress.epoch, "factor": factor, "weights": weights}) + "\n")
    state.destroy_process_group()
