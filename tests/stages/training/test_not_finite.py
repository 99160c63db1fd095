"""Steps whose loss or gradient is not finite: not taken, counted, and the end of the training when they are many."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest
import torch
from reading_guard import guarded
from tiny_training import Interrupting, assert_bitwise_equal, config, cross_entropy, make_job
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted
from vitcompress.pipeline.launch import free_port
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.checkpoint import find_checkpoint
from vitcompress.stages.training.job import TrainingState
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.readings import IN_ALL


def poisoned(at: Container[int], how: str) -> Callable[..., dict[str, Tensor]]:
    """The cross-entropy and a second term, which is not finite at these calls, counted from 1, or its gradient is."""
    calls = 0

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        terms = cross_entropy(model, images, labels)
        if calls in at and how == "gradient":
            weight = next(model.parameters())
            return {**terms, "features": terms["labels"] + (weight - weight.detach()).abs().sqrt().sum()}
        return {**terms, "features": terms["labels"] * (float(how) if calls in at else 1.0)}

    return loss


class States(Callback):
    """Copies of the weights and of AdamW's moments after each step."""

    def __init__(self) -> None:
        self.found: list[list[Tensor]] = []

    def after_step(self, training: TrainingState) -> None:
        moments = [value for state in training.optimizer.state.values() for value in state.values()]
        self.found.append([value.detach().clone() for value in (*training.model.state_dict().values(), *moments)])


@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("way", ["cpu", "gpu"])
def test_one_step_is_left_out_and_the_training_goes_on(
    context: Context, monkeypatch: pytest.MonkeyPatch, how: str, way: str
) -> None:
    """Weights, moments and AdamW's count stay bit for bit; in a GPU's way too, where nothing is read in a step."""
    if way == "gpu":
        guarded(monkeypatch)
    states = States()
    trained = train(make_job(context, poisoned({9}, how)), config(), 3, context, [states])
    same = [all(map(torch.equal, *pair)) for pair in zip(states.found, states.found[1:], strict=False)]
    assert [step for step, unchanged in enumerate(same, 2) if unchanged] == [9]
    assert (trained.progress.steps, trained.progress.skipped, trained.progress.skipped_in_a_row) == (18, 1, 0)
    assert [line["skipped_steps"] for line in context.run.metrics()] == [0, 1, 1]
    assert all(math.isfinite(loss) for line in context.run.metrics() for loss in line["losses"].values())
    what = "gradient norm is " if how == "gradient" else f"loss term 'features' is {how} "
    said = context.console.file.getvalue()  # type: ignore[attr-defined]
    assert f"note: {what}" in said
    assert "at epoch 2, step 9 of tiny; the step was not taken" in said


@pytest.mark.parametrize(
    ("at", "words", "last"),
    [
        ({1}, "epoch 1, step 1 of tiny; the step was not taken. Lower", 0),
        ({9, 10, 11}, "epoch 2, step 9 of tiny; the step was not taken, nor were 2 others up to step 11. Lower", 10),
        (
            range(2, 60, 2),
            f"epoch 1, step 2 of tiny; the step was not taken, nor were {IN_ALL} others up to",
            21,
        ),
    ],
    ids=["the first", "in a row", "in all"],
)
def test_many_of_them_end_it_with_the_first_and_a_good_checkpoint(
    context: Context, at: Container[int], words: str, last: int
) -> None:
    job = make_job(context, poisoned(at, "nan"))
    with pytest.raises(ResultError, match=f"loss term 'features' is nan at {words}"):
        train(job, config(checkpoint_seconds=0.0), 10, context)
    assert all(bool(value.isfinite().all()) for value in job.model.state_dict().values())
    found = find_checkpoint(job.folder, "mine")
    assert (found[1].steps if found else 0) == last


def test_what_was_left_out_is_counted_across_an_interruption(context: Context, tmp_path: Path) -> None:
    whole = train(make_job(context, poisoned({3}, "nan"), folder=tmp_path), config(), 2, context)
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(5, poisoned({3}, "nan"))), config(), 2, context)
    again = train(make_job(context, poisoned((), "nan")), config(), 2, context)
    assert_bitwise_equal(again, whole)
    assert again.progress.skipped == whole.progress.skipped == 1
    assert again.progress.first_skipped == whole.progress.first_skipped


def test_a_checkpoint_of_an_earlier_version_is_resumed(context: Context, tmp_path: Path) -> None:
    whole = train(make_job(context, folder=tmp_path), config(), 2, context)
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(8)), config(), 2, context)
    (path,) = (context.run.root / "checkpoints").glob("tiny/*/*/progress.json")
    saved = json.loads(path.read_text())
    for name in ("summed", "skipped", "skipped_in_a_row", "first_skipped"):
        del saved[name]
    path.write_text(json.dumps(saved))
    assert_bitwise_equal(train(make_job(context), config(), 2, context), whole)


def together(folder: Path, script: str = "stepped_together.py") -> list[dict[str, Any]]:
    """What two processes say of a training; unless told, one where a term of the second alone is not finite, once."""
    tests = Path(__file__).parents[2]
    common = {
        "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests, Path(__file__).parent))),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    words = [sys.executable, str(Path(__file__).with_name(script)), str(folder)]
    started = [
        subprocess.Popen(
            words, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE
        )
        for rank in (0, 1)
    ]
    ended = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [json.loads(said.splitlines()[-1]) for said in ended]


def test_all_processes_leave_a_step_out_for_one_of_them_and_none_reads_within_a_step(tmp_path: Path) -> None:
    one, other = together(tmp_path)
    assert one == other
    assert one["first_skipped"] == "loss term 'features' is nan at epoch 1, step 3 of tiny"
    assert (one["skipped"], one["steps"], one["unchanged"]) == (1, 12, [3])
