"""Choose what a training's settings leave to "auto": from the images, the network, and how it starts (torch-free).

The papers' rules are for batches of 1,024 and more over 300 epochs of ImageNet; the published recipes name them. What
stands here is for the data at hand. The bases were measured with ``benchmarks/real.py`` (docs/real.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from vitcompress.core.words import counted
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlConfig
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.training.config import TrainingConfig

Training = TypeVar("Training", bound=TrainingConfig)
Start = Literal["random", "pretrained", "teacher"]
"""Where first weights come from; a file counts as pretrained."""

_LARGEST_BATCH = 256
_STEPS_AN_EPOCH = 30
_BASE_BATCH = 64
_BASE_LR: dict[Start, float] = {"random": 1e-3, "teacher": 3e-4, "pretrained": 3e-4}
"""Peak learning rates of AdamW at a batch of 64 for a network of ``_BASE_PARAMETERS``."""
_BASE_PARAMETERS: dict[Start, float] = {"random": 5.7e6, "teacher": 5.7e6, "pretrained": 22e6}
"""Of DeiT-Tiny, and of the ViT-S that was fine-tuned."""
_SURE_BATCHES = (8, 1024)
"""Batches that the rule was measured near; outside, a range test decides."""
_FINDING_PAYS = 600
"""Steps of a training for which the 60 of a range test are cheap."""
_LAYER_DECAY = 0.75
_LEAST_WARMUP_STEPS = 30
_MOST_WARMUP = 0.3
_LARGEST_EMA = 0.9999


@dataclass(frozen=True)
class Facts:
    """What is known before a training begins."""

    section: Literal["teacher", "distill"]
    images: int
    """To train on."""
    parts: int
    """That a batch is divided into: processes times accumulation."""
    start: Start
    parameters: int
    """Of the network that trains."""


@dataclass(frozen=True)
class Choice:
    """One decided setting."""

    key: str
    """Dotted, as ``--set`` takes it."""
    value: Any
    reason: str
    """One sentence without its full stop."""


def start_of(init: str) -> Start:
    """How a network of this ``init`` starts, once it is no longer ``auto``."""
    return "teacher" if init == "teacher" else "pretrained" if init in ("pretrained", "file") else "random"


def choose(config: Training, asked: AugmentConfig, facts: Facts) -> tuple[Training, list[Choice]]:
    """``config`` with every ``auto`` of a training decided, and the reasons in the order of deciding.

    Args:
        config: of the teacher or of distillation; given values stay.
        asked: the augmentation of ``data.augment``.
        facts: what is known.
    """
    choices: list[Choice] = []

    def decided(name: str, value: Any, reason: str) -> Any:
        choices.append(Choice(f"{facts.section}.{name}", value, reason))
        return value

    def take(name: str, rule: Any, *further: Any, told: bool = True) -> None:
        """The setting as given, or as the rule says; ``told``: it decides something."""
        nonlocal config
        if getattr(config, name) == "auto":
            value, reason = rule(config, facts, *further)
            config = config.model_copy(update={name: decided(name, value, reason) if told else value})

    take("batch_size", _batch)
    if isinstance(config, TeacherConfig):
        take("tune_epochs", _tuning, told=config.epochs == "auto")
        if facts.start != "random":
            take("tune", _tune)
    if isinstance(config, DistillConfig):
        take("epochs", _epochs)
    epochs = config.epochs if isinstance(config.epochs, int) else int(config.tune_epochs)  # type: ignore[attr-defined]
    steps = epochs * max(1, facts.images // int(config.batch_size))
    take("lr", _lr, steps)
    if config.lr == "linear":
        rate = 5e-4 * int(config.batch_size) / 512
        reason = "5e-4 x batch / 512, the papers' rule, as asked for"
        config = config.model_copy(update={"lr": decided("lr", rate, reason)})
    take("layer_decay", _layer_decay)
    take("min_lr", _min_lr)
    take("warmup_epochs", _warmup, epochs, steps)
    take("ema_decay", _ema, steps)
    wanted = asked if isinstance(config.augment, str) else config.augment
    augment, reason = augmentation(wanted, epochs)
    if augment != wanted:
        choices.append(Choice(f"{facts.section}.augment", strength_of(epochs), reason))
    config = config.model_copy(update={"augment": augment})
    return config, choices


def choose_control(
    control: ControlConfig, asked: DistillConfig, decided: DistillConfig, augment: AugmentConfig, facts: Facts
) -> tuple[ControlConfig, list[Choice]]:
    """``control`` with its rates decided: the distillation's, or those of random weights where it starts from them.

    Args:
        control: as given.
        asked: the distillation's settings before ``choose``.
        decided: after it.
        augment: of ``data.augment``.
        facts: of the distillation.
    """
    rates, anew = decided, facts.start == "teacher" and control.start == "untaught"
    if anew:
        left = {"batch_size": decided.batch_size, "epochs": decided.epochs, "lr": "auto", "layer_decay": "auto"}
        rates, _ = choose(asked.model_copy(update=left), augment, replace(facts, start="random"))
    why = "for random weights, without the teacher's" if anew else "as the distillation"
    values = {name: getattr(rates, name) for name in ("lr", "layer_decay") if getattr(control, name) == "auto"}
    shown = [Choice(f"control.{name}", value, why) for name, value in values.items() if control.kind != "none"]
    return control.model_copy(update=values), shown


def _batch(config: TrainingConfig, facts: Facts) -> tuple[int, str]:
    batch = facts.parts
    while batch * 2 <= min(_LARGEST_BATCH, facts.images // _STEPS_AN_EPOCH):
        batch *= 2
    batch = max(batch, min(facts.parts * -(-_SURE_BATCHES[0] // facts.parts), facts.images))
    return batch, f"the largest up to {_LARGEST_BATCH} that leaves an epoch {_STEPS_AN_EPOCH} steps"


def _epochs(config: DistillConfig, facts: Facts) -> tuple[int, str]:
    """Passes by the square root: a hundredth of the images asks for ten times the passes."""
    epochs, reason = _from_random(facts)
    if facts.start == "random":
        return epochs, reason
    return max(20, epochs // 3), "a third of what random weights would need"


def _from_random(facts: Facts) -> tuple[int, str]:
    epochs = min(300, max(50, round(100 * math.sqrt(10_000 / facts.images))))
    return epochs, "100 x sqrt(10,000 / images), from 50 to 300: random weights need many views"


def _tune(config: TeacherConfig, facts: Facts) -> tuple[str, str]:
    return "better", "a linear probe, then all weights from there; what is right more often on the tuning part is kept"


def _tuning(config: TeacherConfig, facts: Facts) -> tuple[int, str]:
    if facts.start == "random":
        return _from_random(facts)
    per_epoch = max(1, facts.images // int(config.batch_size))
    epochs = min(50, max(10, -(-300 // per_epoch)))
    return epochs, "10, or more for at least 300 steps, up to 50"


def _lr(config: TrainingConfig, facts: Facts, steps: int) -> tuple[float | str, str]:
    batch = int(config.batch_size)
    low, high = _SURE_BATCHES
    if not low <= batch <= high and steps >= _FINDING_PAYS:
        return (
            "find",
            f"a batch of {batch:,} is outside {low} to {high:,}, where the rule was measured: a range test decides",
        )
    base, usual = _BASE_LR[facts.start], _BASE_PARAMETERS[facts.start]
    factor = min(3.0, max(0.3, (usual / facts.parameters) ** 0.25))
    rate = base * math.sqrt(batch / _BASE_BATCH) * factor
    words = {
        "random": "random weights",
        "teacher": "weights taken from the teacher",
        "pretrained": "pretrained weights",
    }[facts.start]
    size = f"{facts.parameters / 1e6:.3g} M parameters"
    return float(f"{rate:.3g}"), f"{base:g} x sqrt(batch / {_BASE_BATCH}) for {words}, x {factor:.2f} for {size}"


def _layer_decay(config: TrainingConfig, facts: Facts) -> tuple[float | None, str]:
    if facts.start == "random":
        return None, "no trained blocks to protect"
    return _LAYER_DECAY, "trained blocks near the input change least"


def _min_lr(config: TrainingConfig, facts: Facts) -> tuple[float, str]:
    if not isinstance(config.lr, float):
        return 1e-5, "the learning rate is found later"
    return config.lr / 100, "a hundredth of lr"


def _warmup(config: TrainingConfig, facts: Facts, epochs: int, steps: int) -> tuple[float, str]:
    if not epochs:
        return 0.0, "nothing is trained"
    share = min(_MOST_WARMUP, max(0.1, _LEAST_WARMUP_STEPS / steps))
    warmup = min(5.0, share * epochs)
    return round(warmup, 4), f"{warmup / epochs:.0%} of {counted(steps, 'step')}"


def _ema(config: TrainingConfig, facts: Facts, steps: int) -> tuple[float, str]:
    decay = min(_LARGEST_EMA, max(0.9, 1 - 10 / max(steps, 1)))
    return round(decay, 6), "an average over a tenth of the steps"


_GENTLE: dict[str, Any] = {"crop_scale": (0.8, 1.0), "auto_augment": None, "color_jitter": 0.0, "random_erasing": 0.0}
_LIGHT: dict[str, Any] = {**_GENTLE, "crop_scale": (0.5, 1.0)}
_MEDIUM: dict[str, Any] = {
    "crop_scale": (0.25, 1.0),
    "auto_augment": "rand-m5-mstd0.5-inc1",
    "color_jitter": 0.2,
    "random_erasing": 0.1,
}
_STRONG: dict[str, Any] = {
    "crop_scale": (0.08, 1.0),
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": 0.4,
    "random_erasing": 0.25,
}
_STRENGTHS = ((10, "gentle", _GENTLE), (30, "light", _LIGHT), (100, "medium", _MEDIUM), (math.inf, "strong", _STRONG))
"""Epochs below which each holds."""


def strength_of(epochs: int) -> str:
    """``gentle``, ``light``, ``medium`` or ``strong``."""
    return next(name for limit, name, _ in _STRENGTHS if epochs < limit)


def augmentation(asked: AugmentConfig, epochs: int) -> tuple[AugmentConfig, str]:
    """``asked`` with its ``auto`` decided for a training of ``epochs`` passes, and why."""
    name, values = strength_of(epochs), next(values for limit, _, values in _STRENGTHS if epochs < limit)
    left = {key: value for key, value in values.items() if getattr(asked, key) == "auto"}
    seen = counted(epochs, "view")
    reasons = {
        "gentle": f"flips and crops of nearly the whole image: a training of {seen} of an image has no time for more",
        "light": f"crops and flips alone: a short training sees {seen} of an image, and strong ones are not learned",
        "medium": f"a training sees {seen} of an image",
        "strong": f"as DeiT's: a long training sees {seen} of an image, and would learn fewer by heart",
    }
    return asked.model_copy(update=left), reasons[name]
