"""A step reads nothing from its device: values stay there until they are read together (``stages.training.readings``).

``reading_guard`` makes reading raise on a CPU. It does not see torch's own C++ code; a GPU's sync debug mode does. The
same of a distillation is in ``tests/stages/distill/test_step_without_wait.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller
from typing import Any

import pytest
import torch
from reading_guard import Waiting, guarded
from timm.data import Mixup
from tiny_training import CLASSES, assert_bitwise_equal, config, cross_entropy, make_job
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.stages.training import loop
from vitcompress.stages.training.job import Job, Trained
from vitcompress.stages.training.terms import Compared, Terms

STEPS = 12
"""Two epochs."""


STEPS = 12
"""Two epochs."""


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return guarded(monkeypatch)


def job(context: Context, **changes: Any) -> Job:
    """With balanced terms, which are measured now and then."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = model(images)
        return {"labels": nn.functional.cross_entropy(logits, labels), "features": (logits - 3).square().mean()}

    made = make_job(context, loss, **changes)
    body: Any = made.model
    return replace(made, compared=Compared(tuple(body.body[1].parameters()), {"features": 0.5}))


def trained(context: Context, made: Job, **settings: Any) -> Trained:
    return loop.train(made, config(**settings), 2, context)


def test_no_step_waits_and_the_weights_are_those_of_a_cpus_way(
    context: Context, request: pytest.FixtureRequest, tmp_path: Any
) -> None:
    plain = trained(context, job(context, folder=tmp_path / "cpu"), clip_grad=0.5)
    waiting: Waiting = request.getfixturevalue("waiting")
    assert_bitwise_equal(trained(context, job(context), clip_grad=0.5), plain)
    assert waiting.steps == STEPS


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"mix": Mixup(0.8, 1.0, num_classes=CLASSES)}, {}),
        ({"batch": 4}, {"accumulation": 2}),
        ({}, {"clip_grad": None, "ema_decay": None, "precision": "bfloat16"}),
    ],
    ids=["mixup", "accumulation", "bfloat16"],
)
def test_no_kind_of_step_waits(
    context: Context, waiting: Waiting, changes: dict[str, Any], settings: dict[str, Any]
) -> None:
    trained(context, job(context, **changes), **settings)
    assert waiting.steps == STEPS * settings.get("accumulation", 1)


@pytest.mark.parametrize("read", [methodcaller("item"), methodcaller("tolist"), methodcaller("cpu"), float, bool])
def test_one_reading_put_back_is_noticed(context: Context, waiting: Waiting, read: Callable[[Tensor], Any]) -> None:
    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        terms = cross_entropy(model, images, labels)
        read(terms["labels"].detach())
        return terms

    with pytest.raises(AssertionError, match="waits for the device"):
        trained(context, make_job(context, loss))


def test_values_are_read_once_in_log_every_steps(context: Context, waiting: Waiting) -> None:
    """One epoch of 6 steps: after the first, and then, where steps are fast, as rarely as the setting says."""
    counts = {}
    for every in (1, 3, 100):
        waiting.reads = 0
        made = make_job(context, folder=context.run.root / f"every {every}")
        loop.train(made, config(log_every=every), 1, context)
        counts[every] = waiting.reads
    assert counts[1] - counts[3] == 4
    assert counts[3] - counts[100] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_step_waits_for_a_gpu(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch itself refuses whatever makes the host wait, its own C++ code included."""
    measure, step = Terms._measure, loop.Training.step

    def measured(*arguments: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")
        measure(*arguments)
        torch.cuda.set_sync_debug_mode("error")

    def watched(training: loop.Training, *batch: Tensor) -> None:
        torch.cuda.set_sync_debug_mode("error" if training.progress.steps else "default")  # the first one makes handles
        try:
            step(training, *batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Terms, "_measure", measured)
    monkeypatch.setattr(loop.Training, "step", watched)
    on_gpu = replace(context, device="cuda")
    assert trained(on_gpu, job(on_gpu), clip_grad=0.5).progress.steps == STEPS
