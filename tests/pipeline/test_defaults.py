"""What a training's open settings become, for which images and networks, and that each has its reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.pipeline.defaults import Facts, augmentation, choose, choose_control, start_of, strength_of
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlConfig
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.teacher.config import TeacherConfig

TINY, SMALL = 5_700_000, 22_000_000


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {"section": "distill", "images": 2000, "parts": 1, "start": "random", "parameters": TINY}
    return Facts(**{**values, **changes})


def distill(changes: dict[str, Any] | None = None, **known: Any) -> DistillConfig:
    return choose(DistillConfig(**(changes or {})), AugmentConfig(), facts(**known))[0]


def teacher(changes: dict[str, Any] | None = None, **known: Any) -> TeacherConfig:
    known = {"section": "teacher", "start": "pretrained", "parameters": SMALL, **known}
    return choose(TeacherConfig(model="vit", **(changes or {})), AugmentConfig(), facts(**known))[0]


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


@pytest.mark.parametrize(
    ("start", "control", "like"),
    [("teacher", "untaught", "random"), ("teacher", "same", "teacher"), ("random", "untaught", "random")],
)
def test_a_controls_rates_suit_its_own_first_weights(start: Any, control: Any, like: Any) -> None:
    asked, known = ControlConfig(kind="labels", start=control), facts(start=start)
    found, _ = choose_control(asked, DistillConfig(), distill(start=start), AugmentConfig(), known)
    wanted = distill(start=like)
    assert (found.lr, found.layer_decay) == (wanted.lr, wanted.layer_decay)


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
    assert all(strength_of(epochs) == name for name, ends in ranges.items() for epochs in ends)
    found = [augmentation(AugmentConfig(), epochs)[0] for epochs in (4, 10, 30, 300)]
    smallest = [augment.crop_scale[0] for augment in found]
    assert smallest == sorted(smallest, reverse=True)
    assert [augment.auto_augment is None for augment in found] == [True, True, False, False]
    assert (found[-1].crop_scale, found[-1].auto_augment) == ((0.08, 1.0), "rand-m9-mstd0.5-inc1")


def test_given_augmentation_stays_in_both_places() -> None:
    given_here, _ = choose(DistillConfig(epochs=4), AugmentConfig(random_erasing=0.9), facts())
    assert given_here.augmentation.random_erasing == 0.9
    own = DistillConfig(epochs=4, augment=AugmentConfig(color_jitter=0.7))
    assert choose(own, AugmentConfig(random_erasing=0.9), facts())[0].augmentation.color_jitter == 0.7
    assert choose(own, AugmentConfig(random_erasing=0.9), facts())[0].augmentation.random_erasing == 0.0


def test_given_values_stay() -> None:
    values = {"batch_size": 7, "lr": 0.5, "epochs": 3, "warmup_epochs": 1.0, "min_lr": 0.1, "ema_decay": None}
    config = distill({**values, "layer_decay": 0.9})
    assert {key: getattr(config, key) for key in values} == values
    assert config.layer_decay == 0.9


def test_a_teacher_from_random_weights_sees_the_images_as_often_as_a_student() -> None:
    assert teacher(images=10_000, start="random").tune_epochs == distill(images=10_000).epochs == 100


def test_what_given_epochs_make_useless_is_not_told() -> None:
    for epochs, told in (("auto", True), (3, False)):
        config = TeacherConfig(model="vit", epochs=epochs)
        decided, choices = choose(config, AugmentConfig(), facts(section="teacher", start="pretrained"))
        assert ("teacher.tune_epochs" in [choice.key for choice in choices]) == told
        assert choices[0].key == "teacher.batch_size"
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
    for open_config in (DistillConfig(), TeacherConfig(model="vit")):
        config, choices = choose(open_config, AugmentConfig(), known)
        left = [name for name in type(config).model_fields if getattr(config, name) == "auto"]
        assert set(left) <= {"compile", "teacher_precision", "keep_every", "args", "init", "epochs", "precision",
                             "eval_every", "tune", "balance"}  # fmt: skip
        assert [choice.key for choice in choices if not choice.reason or choice.reason.endswith(".")] == []
        assert all(
            isinstance(choice.value, str) or choice.value is None or math.isfinite(choice.value) for choice in choices
        )
        assert "auto" not in config.augmentation.model_dump().values()
