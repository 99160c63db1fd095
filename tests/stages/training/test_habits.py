"""Optimizers and schedules by timm's names, early stopping, freezing and checkpointed gradients, in the loop."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from habits_together import trained
from small_run import STUDENT, STUDENT_ARGS, student_spec
from test_loop_resumed import Normed
from test_not_finite import together
from tiny_training import Interrupting, assert_bitwise_equal, config, make_job
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model, logits_and_taps
from vitcompress.stages.models.trainable import prepare
from vitcompress.stages.training.callbacks.early import EarlyStop
from vitcompress.stages.training.loop import Training, train
from vitcompress.stages.training.optimizer import make_optimizer, try_optimizer
from vitcompress.stages.training.schedule import make_schedule

HABITS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.8, "optimizer_args": {"nesterov": False}},
    {"optimizer": "lion", "betas": (0.9, 0.98), "lr": 1e-3},
    {"optimizer": "muon"},
    {"optimizer": "adan", "betas": (0.98, 0.92, 0.99), "eps": 1e-7},
    {"optimizer": "kron", "lr": 1e-3},
    {"optimizer": "lookahead_nadamw", "optimizer_args": {"foreach": False}},
    {"scheduler": "plateau", "scheduler_args": {"patience_epochs": 0.5, "decay_rate": 0.3}, "warmup_epochs": 0.5},
    {"scheduler": "tanh", "scheduler_args": {"cycle_limit": 2, "cooldown_epochs": 1}},
]


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: next(iter(habit.values())))
def test_each_habit_learns_and_resumes_bit_by_bit(context: Context, tmp_path: Path, habit: dict[str, Any]) -> None:
    early = [EarlyStop("classification", 9), EarlyStop("classification", 9)]
    whole = train(make_job(context, folder=tmp_path / "whole"), config(**habit), 3, context, [early[0]])
    assert whole.progress.skipped == 0
    assert whole.losses["labels"] < whole.progress.first["losses"]["labels"]
    for at in (9, 4):
        with pytest.raises(RunInterrupted):
            train(make_job(context, Interrupting(at)), config(**habit), 3, context, [EarlyStop("classification", 9)])
    assert_bitwise_equal(train(make_job(context), config(**habit), 3, context, [early[1]]), whole)
    assert early[0].state["epoch"] == early[1].state["epoch"] == 3
    assert torch.equal(early[0].state["best"], early[1].state["best"])


@pytest.mark.parametrize(
    ("habit", "said"),
    [
        ({"optimizer": "adamv"}, r"'adamv', which timm does not have; did you mean: .*adamw"),
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum is 0.9, which optimizer 'adamw' does not take"),
        ({"optimizer": "sgd", "optimizer_args": {"betas": [0.9, 0.9]}}, "betas is .* 'sgd' does not take"),
        ({"optimizer": "sgd", "optimizer_args": {"speed": 3}}, r"'sgd' cannot be used .*speed"),
        ({"optimizer": "adan", "betas": (0.9, 0.9)}, "'adan' cannot be used"),
        ({"optimizer": "adamw", "optimizer_args": {"lr": 3}}, r"'adamw' cannot be used .*lr"),
        ({"optimizer": "bnbadamw8bit"}, "'bnbadamw8bit' cannot be used"),
        ({"optimizer": "adahessian"}, "'adahessian' cannot be used"),
    ],
)
def test_what_an_optimizer_does_not_take_costs_a_sentence(habit: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        try_optimizer(config(**habit))


def rates(epochs: int, **habit: Any) -> list[float]:
    """At the first step of each epoch of four steps."""
    settings = config(lr=0.1, min_lr=0.001, **habit)
    optimizer = make_optimizer(nn.Linear(2, 2), settings, 0.1)
    schedule, found = make_schedule(optimizer, settings, epochs, 4), []
    for step in range(0, 4 * epochs, 4):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_schedules_fall_where_they_are_told_and_cycles_and_cooldown_fit_into_the_epochs() -> None:
    assert rates(5, scheduler="step", scheduler_args={"decay_epochs": 2.0, "decay_rate": 0.5}) == pytest.approx(
        [0.1, 0.1, 0.05, 0.05, 0.025]
    )
    milestones = {"decay_milestones": (1.0, 3.0), "decay_rate": 0.1}
    assert rates(4, scheduler="multistep", scheduler_args=milestones) == pytest.approx([0.1, 0.01, 0.01, 0.001])
    straight = rates(4, scheduler="poly", scheduler_args={"decay_rate": 1.0})
    assert straight == pytest.approx([0.1 - 0.099 * part / 4 for part in range(4)])
    args = {"cycle_limit": 2.0, "cycle_mul": 3.0, "cycle_decay": 0.5, "cooldown_epochs": 2.0}
    cycles = [(0.1, place / 2) for place in range(2)] + [(0.05, place / 6) for place in range(6)]
    found = [0.001 + (peak - 0.001) * (1 + math.cos(math.pi * part)) / 2 for peak, part in cycles]
    assert rates(10, scheduler_args=args) == pytest.approx([*found, 0.001, 0.001])


def test_a_plateau_lowers_the_rate_to_the_least_one(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [50.0, 60.0, 55.0, 60.0, 60.0, 59.0, 70.0, 60.0, 60.0]
    monkeypatch.setattr(Training, "_evaluate", lambda training: (scores[training.progress.epoch - 1], None))
    args = {"patience_epochs": 1.0, "decay_rate": 0.1}
    settings = config(scheduler="plateau", scheduler_args=args, lr=0.1, min_lr=0.002, ema_decay=None)
    train(make_job(context), settings, 9, context)
    found = [line["lr"] for line in context.run.metrics()]
    assert found == pytest.approx([0.1] * 4 + [0.01, 0.01, 0.002, 0.002, 0.002])


def stopped_at(rights: list[int], patience: int, epochs: int = 20) -> tuple[int, int]:
    """The epoch at which so many right answers of 200 end a training, and the reference's."""
    stop, labels = EarlyStop("classification", patience), np.zeros(200, np.int64)
    for epoch, right in enumerate(rights, 1):
        outputs = np.zeros((200, 2), np.float32)
        outputs[right:, 1] = 1
        training: Any = SimpleNamespace(
            progress=SimpleNamespace(epoch=epoch), epochs=epochs, answers=(outputs, labels),
            job=SimpleNamespace(name="tiny"), context=SimpleNamespace(say=lambda text: None),
        )  # fmt: skip
        stop.after_evaluation(training, training)
        stop.after_evaluation(training, training)  # as after a resumption
        if stop.stops(training):
            return epoch, stop.state["best_epoch"]
    return 0, stop.state["best_epoch"]


def test_it_stops_where_evaluations_cannot_be_told_from_an_earlier_one() -> None:
    assert stopped_at([100, 101, 99, 102], 3) == (4, 1)  # one image more of 200 is chance
    assert stopped_at([100, 130, 131, 129], 2) == (4, 2)
    epoch, reference = stopped_at([100, 103, 106, 109, 112, 115, 118], 6)  # slow steps add up
    assert (epoch, reference > 1) == (0, True)


@pytest.mark.parametrize(
    ("graph", "names", "trains"),
    [
        ("plain", ("patch_embed", "blocks.0", "pos_embed", "cls_token"), {"blocks.1", "norm", "head"}),
        ("lift-kept", ("blocks", "projector"), {"base.vit", "norm", "head"}),
        ("lift-kept", "all but head", {"head"}),
        ("widelast", "all but head", {"head"}),
    ],
)
def test_parts_are_frozen_by_name(graph: str, names: Any, trains: set[str]) -> None:
    model = build_model(student_spec(graph))
    prepare(model, config(freeze=names), "distill")
    left = [name for name, own in model.named_parameters() if own.requires_grad]
    assert all(any(name.startswith(f"{prefix}.") for prefix in trains) for name in left)
    assert all(any(name.startswith(f"{prefix}.") for name in left) for prefix in trains)
    optimizer = make_optimizer(model, config(freeze=names, layer_decay=0.75), 0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(left)
    with pytest.raises(UsageError, match=r"distill\.freeze is \('block',\).* parts are: .*blocks"):
        prepare(model, config(freeze=("block",)), "distill")
    with pytest.raises(UsageError, match="leaves nothing to train"):
        prepare(model, config(freeze=tuple(trains)), "distill")


def test_frozen_parts_stay_bit_by_bit_with_their_statistics(context: Context) -> None:
    torch.manual_seed(0)
    model = Normed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare(model, config(freeze=("features",)), "distill")
    raw = train(make_job(context, model=model), config(freeze=("features",)), 2, context).raw
    changed = {name for name, value in raw.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("end.")}


@pytest.mark.parametrize(
    ("arch", "args", "graph"),
    [
        (STUDENT, STUDENT_ARGS, "lift-kept"),
        (STUDENT, STUDENT_ARGS, "widelast"),
        ("cait_xxs24_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}, "plain"),
        ("test_resnet", {}, "plain"),
    ],
)
def test_layers_computed_again_give_the_same_weights_taps_and_statistics(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, args: dict[str, Any], graph: Any
) -> None:
    """Bit by bit, with dropout and batch norms; every tap teaches."""
    width = None if graph == "plain" else 48
    spec = ModelSpec(arch=arch, args={**args, "drop_path_rate": 0.2}, num_classes=3, graph=graph, lift_width=width)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def loss(model: nn.Module, batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits, taps = logits_and_taps(model, images, (0, 1))
        return {"labels": nn.functional.cross_entropy(logits, labels), "taps": sum(tap.square().mean() for tap in taps)}  # type: ignore[dict-item]

    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model, settings = build_model(spec), config(grad_checkpointing=again)
        prepare(model, settings, "distill")
        monkeypatch.setattr(Training, "_evaluate", lambda training: (0.0, None))  # whose images are 4 x 4
        found.append(
            train(make_job(context, loss, model=model, folder=tmp_path / str(again)), settings, 1, context).raw
        )
    assert [name for name, value in found[0].items() if not torch.equal(value, found[1][name])] == []


def test_a_network_that_cannot_is_refused() -> None:
    with pytest.raises(UsageError, match=r"teacher\.grad_checkpointing is true, and Normed cannot compute its blocks"):
        prepare(Normed(), config(grad_checkpointing=True), "teacher")


def test_two_processes_with_all_habits_reach_the_weights_of_one(context: Context, tmp_path: Path) -> None:
    one, other = together(tmp_path, "habits_together.py")
    assert one == other
    alone, factor = trained(context, tmp_path / "alone")
    assert (one["epoch"], one["factor"]) == (alone.progress.epoch, factor)
    for name, value in alone.raw.items():
        torch.testing.assert_close(torch.tensor(one["weights"][name]), value, rtol=0, atol=1e-4)
