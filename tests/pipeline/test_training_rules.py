"""What a training's open settings become, for which images, networks and machines, and that each has its reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.facts import Machine
from vitcompress.pipeline.config.training import EVEN_IF_GIVEN, EXECUTION, SCHEDULE, Training, TrainingFacts, start_of
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.images.config import AugmentConfig
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


@pytest.mark.parametrize(
    ("images", "batch"), [(1, 1), (5, 5), (15, 8), (500, 16), (2000, 64), (10_000, 256), (1_281_167, 256)]
)
def test_a_batch_leaves_an_epoch_thirty_steps(images: int, batch: int) -> None:
    assert distill(images=images).batch_size == batch


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_a_batch_divides_into_its_parts(parts: int) -> None:
    assert int(distill(parts=parts).batch_size) % parts == 0


def test_rates_follow_the_square_root_of_the_batch() -> None:
    rates = [distill({"batch_size": batch}).lr for batch in (16, 64, 256)]
    assert rates == pytest.approx([5e-4, 1e-3, 2e-3])


def test_pretrained_weights_are_changed_gently_and_by_layer() -> None:
    fitted = teacher({"batch_size": 64})
    assert fitted.lr == pytest.approx(3e-4)
    assert fitted.layer_decay == 0.75
    assert distill().layer_decay is None
    assert distill(start="teacher").layer_decay == 0.75
    assert float(distill(start="teacher").lr) < float(distill().lr)  # type: ignore[arg-type]


def test_larger_networks_take_smaller_rates() -> None:
    rates = [float(distill(parameters=count).lr) for count in (30_000, TINY, SMALL, 300_000_000)]  # type: ignore[arg-type]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] <= 3 * rates[1]


def test_the_papers_rule_is_there_by_name() -> None:
    assert distill({"batch_size": 1024, "lr": "linear"}).lr == pytest.approx(1e-3)


def test_a_batch_far_from_the_measured_ones_is_tested_where_the_training_is_long() -> None:
    assert distill({"batch_size": 2048, "epochs": 100}, images=100_000).lr == "find"
    assert distill({"batch_size": 2048, "epochs": 1}, images=100_000).lr != "find"


@pytest.mark.parametrize(("images", "epochs"), [(500, 300), (2000, 224), (10_000, 100), (1_281_167, 50)])
def test_fewer_images_are_seen_more_often(images: int, epochs: int) -> None:
    assert distill(images=images).epochs == epochs
    assert int(distill(images=images, start="pretrained").epochs) < epochs


@pytest.mark.parametrize(("epochs", "share"), [(300, 5 / 300), (20, 0.1), (4, 30 / 124), (1, 0.3)])
def test_warmup_is_a_tenth_and_at_least_thirty_steps(epochs: int, share: float) -> None:
    config = distill({"epochs": epochs, "batch_size": 64})
    assert config.warmup_epochs == pytest.approx(share * epochs, abs=1e-3)


def test_the_average_spans_a_tenth_of_the_training() -> None:
    assert distill({"epochs": 40, "batch_size": 64}).ema_decay == pytest.approx(1 - 10 / 1240, abs=1e-6)
    assert distill({"epochs": 300, "batch_size": 16}, images=100_000).ema_decay == 0.9999


def test_augmentation_is_as_strong_as_the_training_is_long() -> None:
    ranges = {"gentle": (1, 9), "light": (10, 29), "medium": (30, 99), "strong": (100, 300)}
    found = []
    for name, ends in ranges.items():
        for epochs in ends:
            choice = SCHEDULE["augment"](DistillConfig(epochs=epochs, batch_size=64), facts())
            assert choice is not None
            assert choice.shown == name
        found.append(choice.value)
    smallest = [augment.crop_scale[0] for augment in found]
    assert smallest == sorted(smallest, reverse=True)
    assert [augment.auto_augment is None for augment in found] == [True, True, False, False]
    assert (found[-1].crop_scale, found[-1].auto_augment) == ((0.08, 1.0), "rand-m9-mstd0.5-inc1")


def test_given_augmentation_stays_in_both_places() -> None:
    common = AugmentConfig(random_erasing=0.9)
    assert distill({"epochs": 4}, augment=common).augmentation.random_erasing == 0.9
    own = distill({"epochs": 4, "augment": AugmentConfig(color_jitter=0.7)}, augment=common).augmentation
    assert (own.color_jitter, own.random_erasing) == (0.7, 0.0)


def test_given_values_stay() -> None:
    values = {"batch_size": 7, "lr": 0.5, "epochs": 3, "warmup_epochs": 1.0, "min_lr": 0.1, "ema_decay": None}
    config = distill({**values, "layer_decay": 0.9})
    assert {key: getattr(config, key) for key in values} == values
    assert config.layer_decay == 0.9


def test_a_teacher_from_random_weights_sees_the_images_as_often_as_a_student() -> None:
    assert teacher(images=10_000, start="random").tune_epochs == distill(images=10_000).epochs == 100


def test_what_given_epochs_make_useless_is_not_told() -> None:
    for epochs, told in (("auto", True), (3, False)):
        decided, choices = settled(TeacherConfig(model="vit", epochs=epochs), facts(start="pretrained"))
        assert any("at least 300 steps" in choice.reason for choice in choices) == told
        assert decided.tune_epochs != "auto"


def test_a_teacher_of_few_images_is_tuned_for_enough_steps() -> None:
    assert teacher(images=10_000).tune_epochs == 10
    assert teacher({"batch_size": 64}, images=500).tune_epochs == 43
    assert teacher({"batch_size": 64}, images=64).tune_epochs == 50


@pytest.mark.parametrize(
    ("init", "start"), [("random", "random"), ("scratch", "random"), ("file", "pretrained"), ("teacher", "teacher")]
)
def test_first_weights_are_told_apart(init: str, start: str) -> None:
    assert start_of(init) == start


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
        ({"machine": machine("AMX")}, "measure", "the CPU has AMX"),
        ({"machine": machine("AMX"), "geometry": "reduced"}, "float32", "reduced geometry"),
        ({"machine": machine("AMX"), "own": 1e6}, "float32", "under a minute"),
        ({}, "float32", "neither AMX nor AVX512-BF16"),
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
