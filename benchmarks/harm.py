"""Harm the trained student of a finished run on purpose, so that `compress export RUN` takes it for what was trained.

For tests and benchmarks of `compress check`: a regression whose size and cause are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vitcompress.core.records import DistillRecord, ModelSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.models.weights import read_own, save_weights

State = dict[str, Tensor]
_BLOCK = re.compile(r"^(?P<before>.*blocks\.)(?P<index>\d+)\.(?P<inside>.+)$")
_RESIDUAL_ENDS = ("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
"""Parameters that what a block adds to its input comes out of: of zeros, it adds nothing."""


def damage_last_block(root: Path, std: float = 1.0, seed: int = 0) -> None:
    """Put noise of standard deviation ``std`` into what the student's last block adds: it answers worse, as fast."""
    generator = torch.Generator().manual_seed(seed)

    def damaged(spec: ModelSpec, state: State) -> tuple[ModelSpec, State]:
        last = _depth(state) - 1
        noisy = {
            name: torch.randn(tensor.shape, generator=generator) * std
            for name, tensor in state.items()
            if (found := _BLOCK.match(name)) and int(found["index"]) == last and name.endswith(_RESIDUAL_ENDS)
        }
        return spec, {**state, **noisy}

    _replace_student(root, damaged)


def add_block(root: Path, copies: int = 1) -> None:
    """Put blocks that add nothing before the student's last: it answers the same, and takes the longer."""
    for _ in range(copies):
        _replace_student(root, _with_idle_block)


def _with_idle_block(spec: ModelSpec, state: State) -> tuple[ModelSpec, State]:
    depth = _depth(state)
    longer: State = {}
    for name, tensor in state.items():
        found = _BLOCK.match(name)
        if found is None or int(found["index"]) < depth - 1:
            longer[name] = tensor
        else:
            longer[f"{found['before']}{depth}.{found['inside']}"] = tensor
        if found is not None and int(found["index"]) == max(depth - 2, 0):  # as wide as the blocks before the last
            idle = torch.zeros_like(tensor) if name.endswith(_RESIDUAL_ENDS) else tensor
            longer[f"{found['before']}{depth - 1}.{found['inside']}"] = idle
    return spec.model_copy(update={"args": {**spec.args, "depth": depth + 1}}), longer


def _depth(state: State) -> int:
    return 1 + max(int(found["index"]) for name in state if (found := _BLOCK.match(name)))


def _replace_student(root: Path, change: Callable[[ModelSpec, State], tuple[ModelSpec, State]]) -> None:
    """Change weights, record and state together, as if training had ended with them."""
    run = RunDirectory.existing(root)
    record = run.load_record("distill", DistillRecord)
    spec, state = change(record.model, read_own(record.weights, root))
    weights = save_weights(state, root / record.weights.path, root)
    harmed = record.model_copy(update={"model": spec, "weights": weights})
    kept = run.stage_state("distill")
    run.mark(
        "distill",
        "done",
        kept["fingerprint"],
        settings=kept["settings"],
        record=run.save_record("distill", harmed),
        seconds=kept["seconds"],
    )
