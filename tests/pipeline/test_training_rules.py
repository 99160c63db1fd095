"""What a training's open settings become, for which images, networks and machines, and that each has its reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.facts import Machine
from vitcompress.pipeline.config.training import EVEN_IF_GIVEN, EXECUTION, SCHEDULE, Training, TrainingFacts
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.teacher.config import TeacherConfig

TINY, SMALL = 5_700_000, 22_000_000
LONG = 3e9
"""Operations of an image, forward, with which 3 epochs of 10,000 images take 90 minutes of arithmetic."""


def machine(*units: str, gpu_bfloat16: bool = False) -> Machine:
    """A machine whose CPU has these units for bfloat16."""
    found = Machine()
    vars(found).update(bfloat16_units=units, gpu_bfloat16=gpu_bfloat16)
    return found


def facts(**changes: Any) -> TrainingFacts:
    values: dict[str, Any] = {"images": 2000, "parts": 1, "start": "random", "parameters": TINY}
    return TrainingFacts(**{**values, **changes})


def settled(config: Training, known: TrainingFacts, *names: str) -> tuple[Any, list[Choice]]:
    """The config with its settings decided (all of the schedule, or those named), and the choices with a reason."""
    choices = []
    for name, rule in {**SCHEDULE, **EXECUTION}.items():
        wanted = name in names if names else name in SCHEDULE
        left = hasattr(config, name) and (getattr(config, name) == "auto" or name in EVEN_IF_GIVEN)
        if not wanted or not left or (name == "epochs" and isinstance(config, TeacherConfig)):
            continue
        choice = rule(config, known)
        if choice is not None:
            config = config.model_copy(update={name: choice.value})
            choices += [choice] if choice.reason else []
    return config, choices


def distill(changes: dict[str, Any] | None = None, **known: Any) -> DistillConfig:
    found: DistillConfig = settled(DistillConfig(**(changes or {})), facts(**known))[0]
    return found


def teacher(changes: dict[str, Any] | None = None, **known: Any) -> TeacherConfig:
    known = {"start": "pretrained", "parameters": SMALL, **known}
    found: TeacherConfig = settled(TeacherConfig(model="vit", **(changes or {})), facts(**known))[0]
    return found


LARGE: dict[str, Any] = {"images": 100_000}


@pytest.mark.parametrize(
    ("given_values", "known", "key", "value"),
    [
        *(({}, {"images": count}, "batch_size", size)  # an epoch keeps thirty steps
          for count, size in ((1, 1), (5, 5), (15, 8), (500, 16), (2000, 64), (10_000, 256), (1_281_167, 256))),
        ({}, {"parts": 12}, "batch_size", 48),
        *(({"batch_size": size}, {}, "lr", rate) for size, rate in ((16, 5e-4), (64, 1e-3), (256, 2e-3))),
        *(({}, {"parameters": count}, "lr", rate)
          for count, rate in ((30_000, 3e-3), (SMALL, 7.13e-4), (300_000_000, 3.71e-4))),
        ({}, {"start": "teacher"}, "lr", 3e-4),
        ({"batch_size": 1024, "lr": "linear"}, {}, "lr", 1e-3),
        ({"batch_size": 2048, "epochs": 1}, LARGE, "lr", 5.66e-3),
        ({}, {}, "layer_decay", None),
        ({}, {"start": "teacher"}, "layer_decay", 0.75),
        ({}, {"start": "teacher", "layered": False}, "layer_decay", None),
        *(({}, {"images": count}, "epochs", epochs)  # the fewer the images, the more often each is seen
          for count, epochs in ((500, 300), (2000, 224), (10_000, 100), (1_281_167, 50))),
        ({}, {"images": 500, "start": "pretrained"}, "epochs", 100),
        *(({"epochs": epochs, "batch_size": 64}, {}, "warmup_epochs", warmup)  # a tenth, and at least thirty steps
          for epochs, warmup in ((300, 5), (20, 2), (4, 120 / 124), (1, 0.3))),
        ({"epochs": 40, "batch_size": 64}, {}, "ema_decay", 1 - 10 / 1240),
        ({"epochs": 300, "batch_size": 16}, LARGE, "ema_decay", 0.9999),
    ],
)  # fmt: skip
def test_a_students_setting_is_what_its_rule_says(
    given_values: dict[str, Any], known: dict[str, Any], key: str, value: Any
) -> None:
    found = getattr(distill(given_values, **known), key)
    assert found == (pytest.approx(value, rel=2e-3) if isinstance(value, float) else value)


def test_a_pretrained_teacher_is_changed_gently_for_enough_steps() -> None:
    fitted = teacher({"batch_size": 64})
    assert (fitted.lr, fitted.layer_decay) == (pytest.approx(3e-4), 0.75)
    tuned = [teacher({"batch_size": 64}, images=count).tune_epochs for count in (20_000, 500, 64)]
    assert tuned == [10, 43, 50]
    assert teacher(images=10_000, start="random").tune_epochs == 100, "as often as a student"


def strength(epochs: int, **known: Any) -> Choice:
    choice = SCHEDULE["augment"](DistillConfig(epochs=epochs, batch_size=64), facts(**known))
    assert choice is not None
    return choice


def test_augmentation_is_as_strong_as_the_training_is_long() -> None:
    trained = {"gentle": (1, 9), "light": (10, 29), "medium": (30, 99), "strong": (100, 300)}
    assert all(strength(epoch, start="pretrained").shown == name for name, ends in trained.items() for epoch in ends)
    ranges = {"gentle": (1, 149), "light": (150, 399), "medium": (400, 999), "strong": (1000, 2000)}
    found = []
    for name, ends in ranges.items():
        for epochs in ends:
            assert strength(epochs).shown == name
        found.append(strength(ends[1]).value)
    smallest = [augment.crop_scale[0] for augment in found]
    assert smallest == sorted(smallest, reverse=True)
    assert [augment.auto_augment is None for augment in found] == [True, True, False, False]
    assert (found[-1].crop_scale, found[-1].auto_augment) == ((0.08, 1.0), "rand-m9-mstd0.5-inc1")


def test_a_small_network_bears_weaker_augmentation_and_a_large_one_no_stronger() -> None:
    small = [strength(epochs, parameters=1_000_000, start="teacher") for epochs in (40, 60, 160, 300)]
    assert [choice.shown for choice in small] == ["gentle", "light", "medium", "medium"]
    assert "with 1 M parameters, as 8 do with DeiT-Tiny's" in small[0].reason
    assert strength(300, parameters=1_000_000).shown == "gentle"
    assert strength(40, parameters=TINY * 10) == strength(40)


def test_given_values_stay() -> None:
    values = {"batch_size": 7, "lr": 0.5, "epochs": 3, "warmup_epochs": 1.0, "min_lr": 0.1, "ema_decay": None}
    config = distill({**values, "layer_decay": 0.9})
    assert {key: getattr(config, key) for key in values} == values
    assert config.layer_decay == 0.9


def test_what_given_epochs_make_useless_is_not_told() -> None:
    for epochs, told in (("auto", True), (3, False)):
        decided, choices = settled(TeacherConfig(model="vit", epochs=epochs), facts(start="pretrained"))
        assert any("at least 300 steps" in choice.reason for choice in choices) == told
        assert decided.tune_epochs != "auto"


@given(
    images=st.integers(1, 10**7),
    parts=st.integers(1, 16),
    parameters=st.integers(1000, 10**10),
    start=st.sampled_from(["random", "pretrained", "teacher"]),
)
def test_whatever_the_data_every_setting_is_decided_with_a_reason(
    images: int, parts: int, parameters: int, start: str
) -> None:
    known = facts(images=images, parts=parts, parameters=parameters, start=start)
    for asked in (DistillConfig(), TeacherConfig(model="vit")):
        config, choices = settled(asked, known)
        assert [name for name in SCHEDULE if name != "epochs" and getattr(config, name, None) == "auto"] == []
        assert [choice for choice in choices if choice.reason.endswith(".")] == []
        assert all(math.isfinite(choice.value) for choice in choices if isinstance(choice.value, float))
        assert "auto" not in config.augmentation.model_dump().values()


def executed(config: Training | None = None, **known: Any) -> Training:
    """How a training of 3 epochs is carried out."""
    values = {"images": 10_000, "held_out": 1000, "own": LONG, "machine": machine(), **known}
    asked = config or DistillConfig(epochs=3, alpha=0.0, features=())
    found: Training = settled(asked, facts(**values), "eval_every", "precision")[0]
    return found


@pytest.mark.parametrize(
    ("train", "held", "ema", "teacher_beside", "epochs", "every"),
    [
        (60_000, 1000, None, 0.0, 100, 1),  # a pass forward costs a 180th of an epoch
        (10_000, 3000, None, 0.0, 100, 1),  # just a tenth
        (10_000, 3001, None, 0.0, 100, 2),
        (10_000, 3000, 0.99, 0.0, 100, 2),  # and the average's as much again
        (2000, 1000, 0.99, 0.0, 3, 3),  # the last epoch alone
        (2000, 1000, 0.99, 7 * LONG, 100, 1),  # a teacher beside the student makes an epoch ten forward passes
    ],
)
def test_evaluations_take_at_most_a_tenth(
    train: int, held: int, ema: float | None, teacher_beside: float, epochs: int, every: int
) -> None:
    alone = {} if teacher_beside else {"alpha": 0.0, "features": ()}
    config = DistillConfig(ema_decay=ema, epochs=epochs, batch_size=64, **alone)  # type: ignore[arg-type]
    assert executed(config, images=train, held_out=held, teacher=teacher_beside).eval_every == every


def test_execution_can_be_asked_for() -> None:
    config = executed(DistillConfig(epochs=3, eval_every=7, precision="bfloat16"), held_out=10_000)
    assert (config.eval_every, config.precision) == (7, "bfloat16")


@pytest.mark.parametrize(
    ("known", "precision", "why"),
    [
        ({"machine": machine("AMX")}, "bfloat16", "AMX"),
        ({"machine": machine("AMX"), "geometry": "reduced"}, "float32", "reduced geometry"),
        ({"machine": machine("AVX512-BF16")}, "float32", "no AMX"),
        ({"device": "cuda", "machine": machine(gpu_bfloat16=True)}, "bfloat16", "in hardware"),
        ({"device": "cuda"}, "float32", "does not multiply"),
    ],
)
def test_precision_is_what_the_hardware_pays_for(known: dict[str, Any], precision: str, why: str) -> None:
    values = {"images": 10_000, "own": LONG, "machine": machine(), **known}
    choice = EXECUTION["precision"](DistillConfig(epochs=3, batch_size=64), facts(**values))
    assert choice is not None
    assert choice.value == precision
    assert why in choice.reason
