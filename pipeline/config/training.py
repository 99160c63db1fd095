"""Decide what a training's settings leave to "auto": from the images, the network, and how it starts (torch-free).

The papers' rules are for batches of 1,024 and more over 300 epochs of ImageNet; the published recipes name them. What
stands here is for the data at hand. The bases were measured with ``benchmarks/real.py`` (docs/real.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from vitcompress.core.words import counted
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.facts import Machine
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.teacher.config import TeacherConfig

Training = TeacherConfig | DistillConfig
Start = Literal["random", "pretrained", "teacher"]
"""Where first weights come from; a file counts as pretrained."""

_LARGEST_BATCH = 256
_STEPS_AN_EPOCH = 30
_BASE_BATCH = 64
_BASE_LR: dict[Start, float] = {"random": 1e-3, "teacher": 3e-4, "pretrained": 3e-4}
"""Peak learning rates of AdamW at a batch of 64 for a network of ``_BASE_PARAMETERS``."""
_BASE_PARAMETERS: dict[Start, float] = {"random": 5.7e6, "teacher": 5.7e6, "pretrained": 22e6}
"""Of DeiT-Tiny, and of the ViT-S that was fine-tuned."""
_LEAST_BATCH = 8
_LAYER_DECAY = 0.75
_LEAST_WARMUP_STEPS = 30
_MOST_WARMUP = 0.3
_LARGEST_EMA = 0.9999
_SNAPSHOTS = 10
_EVALUATING = 0.1
"""Share of a training's arithmetic that its evaluations may take."""


@dataclass(frozen=True)
class TrainingFacts:
    """What is known before a training begins."""

    images: int
    """To train on."""
    parts: int
    """That a batch is divided into: processes times accumulation."""
    start: Start
    parameters: int
    """Of the network that trains."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What ``data.augment`` asks for."""
    plain: bool = True
    """Whether images are 8-bit grey or RGB, which all augmentation is made for."""
    layered: bool = True
    """Whether the network tells which parameters are of which layer."""
    held_out: int = 0
    own: float = 0.0
    """Floating-point operations of the trained network for one image, forward."""
    teacher: float = 0.0
    """Those of the network that is imitated; 0 where there is none."""
    device: Literal["cpu", "cuda"] = "cpu"
    geometry: str = "full"
    machine: Machine = field(default_factory=Machine)


def start_of(init: str) -> Start:
    """Return how a network of this ``init`` starts, once it is no longer ``auto``."""
    return "teacher" if init == "teacher" else "pretrained" if init in ("pretrained", "file", "run") else "random"


def _length(config: Training, facts: TrainingFacts) -> tuple[int, int]:
    """Return the epochs and the optimizer steps of a training whose batch is decided."""
    epochs = config.tune_epochs if isinstance(config, TeacherConfig) and config.epochs == "auto" else config.epochs
    return int(epochs), int(epochs) * max(1, facts.images // int(config.batch_size))


def batch_size(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the images of an optimizer step."""
    batch = facts.parts
    while batch * 2 <= min(_LARGEST_BATCH, facts.images // _STEPS_AN_EPOCH):
        batch *= 2
    batch = max(batch, min(facts.parts * -(-_LEAST_BATCH // facts.parts), facts.images))
    return Choice(batch, f"the largest up to {_LARGEST_BATCH} that leaves an epoch {_STEPS_AN_EPOCH} steps")


def _epochs_from_random(facts: TrainingFacts) -> Choice:
    """Decide the passes by the square root: a hundredth of the images asks for ten times the passes."""
    epochs = min(300, max(50, round(100 * math.sqrt(10_000 / facts.images))))
    return Choice(epochs, "100 x sqrt(10,000 / images), from 50 to 300: random weights need many views")


def epochs(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the epochs of distillation."""
    found = _epochs_from_random(facts)
    if facts.start == "random":
        return found
    return Choice(max(20, found.value // 3), "a third of what random weights would need")


def tune_epochs(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the epochs of fitting a teacher whose classifier does not fit; no reason where given ones hold."""
    if facts.start == "random":
        found = _epochs_from_random(facts)
    else:
        per_epoch = max(1, facts.images // int(config.batch_size))
        found = Choice(min(50, max(10, -(-300 // per_epoch))), "10, or more for at least 300 steps, up to 50")
    return found if isinstance(config, TeacherConfig) and config.epochs == "auto" else Choice(found.value)


def tune(config: Training, facts: TrainingFacts) -> Choice:
    """Decide how pretrained weights are fitted; no reason for random ones, where there is nothing to choose."""
    reason = "a linear probe, then all weights from there; what is right more often on the tuning part is kept"
    return Choice("better", "" if facts.start == "random" else reason)


def lr(config: Training, facts: TrainingFacts) -> Choice | None:
    """Decide the peak learning rate; ``linear`` is the papers' rule, a number stays."""
    batch = int(config.batch_size)
    if config.lr == "linear":
        return Choice(5e-4 * batch / 512, "5e-4 x batch / 512, the papers' rule, as asked for")
    return rate_for(config, facts) if config.lr == "auto" else None


def rate_for(config: Training, facts: TrainingFacts) -> Choice:
    """Return the peak learning rate that suits the batch, the first weights and the size of the network."""
    base, usual = _BASE_LR[facts.start], _BASE_PARAMETERS[facts.start]
    factor = min(3.0, max(0.3, (usual / facts.parameters) ** 0.25))
    rate = base * math.sqrt(int(config.batch_size) / _BASE_BATCH) * factor
    words = {"teacher": "weights taken from the teacher"}.get(facts.start, f"{facts.start} weights")
    size = f"{facts.parameters / 1e6:.3g} M parameters"
    reason = f"{base:g} x sqrt(batch / {_BASE_BATCH}) for {words}, x {factor:.2f} for {size}"
    return Choice(float(f"{rate:.3g}"), reason)


def layer_decay(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the factor on the learning rate from one block to the block below."""
    if facts.start == "random":
        return Choice(None, "no trained blocks to protect")
    if not facts.layered:
        return Choice(None, "the network does not tell its layers")
    return Choice(_LAYER_DECAY, "trained blocks near the input change least")


def min_lr(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the learning rate that the cosine ends at."""
    return Choice(float(config.lr) / 100, "a hundredth of lr")


def warmup_epochs(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the epochs of linear warm-up."""
    epochs, steps = _length(config, facts)
    if not epochs:
        return Choice(0.0, "nothing is trained")
    share = min(_MOST_WARMUP, max(0.1, _LEAST_WARMUP_STEPS / steps))
    warmup = min(5.0, share * epochs)
    return Choice(round(warmup, 4), f"{warmup / epochs:.0%} of {counted(steps, 'step')}")


def ema_decay(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the decay of the averaged weights."""
    decay = min(_LARGEST_EMA, max(0.9, 1 - 10 / max(_length(config, facts)[1], 1)))
    return Choice(round(decay, 6), "an average over a tenth of the steps")


_GENTLE: dict[str, Any] = {"crop_scale": (0.8, 1.0), "auto_augment": None, "color_jitter": 0.0, "random_erasing": 0.0}
_STRENGTHS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("gentle", _GENTLE, "flips, and crops of nearly the whole image"),
    ("light", {**_GENTLE, "crop_scale": (0.5, 1.0)}, "flips and crops alone"),
    ("medium", {"crop_scale": (0.25, 1.0), "auto_augment": "rand-m5-mstd0.5-inc1", "color_jitter": 0.2,
     "random_erasing": 0.1}, "between crops alone and DeiT's"),
    ("strong", {"crop_scale": (0.08, 1.0), "auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4,
     "random_erasing": 0.25}, "as DeiT's, against learning by heart"),
)  # fmt: skip
"""Name, values, and what they are."""
_ENDS: dict[Start, tuple[float, ...]] = {
    "random": (150, 400, 1000, math.inf),
    "teacher": (10, 30, 100, math.inf),
    "pretrained": (10, 30, 100, math.inf),
}
"""Epochs below which each of them holds; trained weights learn by heart sooner.

From random weights gentle was the best of all that was measured, up to 200 epochs (docs/evidence/strengths.md)."""
_ENOUGH_PARAMETERS = 5e6


def _bearable(epochs: int, parameters: int) -> float:
    """Return in how many epochs DeiT-Tiny would bear the augmentation that a network of that size bears in these.

    A small network does not learn by heart, so it has nothing to win by views that are harder to learn
    (docs/evidence/strengths.md).
    """
    return epochs * min(1.0, parameters / _ENOUGH_PARAMETERS)


def augment(config: Training, facts: TrainingFacts) -> Choice:
    """Decide how strongly images are augmented: as strongly as the training's length and the network's size bear."""
    asked = facts.augment if isinstance(config.augment, str) else config.augment
    epochs = _length(config, facts)[0]
    bearable, ends = _bearable(epochs, facts.parameters), _ENDS[facts.start]
    name, values, what = next(one for one, end in zip(_STRENGTHS, ends, strict=True) if bearable < end)
    reason = f"{what}: what {counted(epochs, 'view')} of an image bear"
    if bearable < epochs and epochs >= ends[0]:
        reason += f" with {facts.parameters / 1e6:.2g} M parameters, as {bearable:.0f} do with DeiT-Tiny's"
    if not facts.plain:
        values = {**values, "auto_augment": None, "color_jitter": 0.0}
        reason += "; auto_augment and colour jitter are for 8-bit grey and RGB alone"
    decided = asked.model_copy(update={key: value for key, value in values.items() if getattr(asked, key) == "auto"})
    if decided == asked:
        given = isinstance(config.augment, AugmentConfig)
        return Choice(decided, "" if given else "data.augment leaves nothing open", shown="as data.augment")
    return Choice(decided, reason, shown=name)


def keep_every(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the epochs between snapshots of the student."""
    return Choice(-(-_length(config, facts)[0] // _SNAPSHOTS), f"about {_SNAPSHOTS} snapshots on the way")


def _teacher_beside(config: Training, facts: TrainingFacts) -> float:
    """Return the operations of the frozen teacher for one image an epoch: one that is kept answers once a view."""
    if not isinstance(config, DistillConfig) or not config.asks_teacher:
        return 0.0
    epochs = _length(config, facts)[0]
    return facts.teacher * (config.views or epochs) / epochs


def compilation(config: Training, facts: TrainingFacts) -> Choice | None:
    """Decide whether to compile; an EnvironmentLacksError is raised if that was asked for without a compiler."""
    from vitcompress.stages.training.compilation import decide

    if config.compile_reason:  # decided when the run began, perhaps on another machine; asked of a compiler when used
        return None
    if config.compile == "auto" and config.grad_checkpointing:
        return Choice("off", "not tried together with grad_checkpointing")
    epochs = _length(config, facts)[0]
    # Backward costs twice what forward does.
    operations = float(facts.images) * epochs * (3 * facts.own + _teacher_beside(config, facts)) if epochs else 0.0
    compiled, why = decide(config.compile, facts.device, operations, facts.parts)
    return Choice("on" if compiled else "off", why) if config.compile == "auto" else None


def precision(config: Training, facts: TrainingFacts) -> Choice:
    """Decide what the training computes in."""
    if facts.device == "cuda":
        if facts.machine.gpu_bfloat16:
            return Choice("bfloat16", "the GPU multiplies bfloat16 in hardware")
        return Choice("float32", "the GPU does not multiply bfloat16 in hardware")
    if "AMX" not in facts.machine.bfloat16_units:
        return Choice("float32", "the CPU has no AMX")
    if facts.geometry == "reduced":
        return Choice("float32", "the operators of the reduced geometry are too small for bfloat16 to pay")
    return Choice("bfloat16", "the CPU multiplies it in hardware (AMX)")


def eval_every(config: Training, facts: TrainingFacts) -> Choice:
    """Decide the epochs between evaluations: raw and averaged weights are judged, each by a forward pass."""
    epochs, judged = _length(config, facts)[0], 1 if config.ema_decay is None else 2
    share = judged * facts.own * facts.held_out / (facts.images * (3 * facts.own + _teacher_beside(config, facts)))
    every = max(1, min(math.ceil(share / _EVALUATING), epochs))
    more = f"more often, evaluations of {facts.held_out:,} images would take over a tenth of the training"
    return Choice(every, more if every > 1 else "evaluations take less than a tenth of the training")


TrainingRule = Callable[[Training, TrainingFacts], Choice | None]
SCHEDULE: dict[str, TrainingRule] = {
    "batch_size": batch_size,
    "tune_epochs": tune_epochs,
    "tune": tune,
    "epochs": epochs,
    "lr": lr,
    "layer_decay": layer_decay,
    "min_lr": min_lr,
    "warmup_epochs": warmup_epochs,
    "ema_decay": ema_decay,
    "augment": augment,
}
"""What depends on the images, in the order of deciding; ``epochs`` is for the student, ``tune`` for the teacher."""
EXECUTION: dict[str, TrainingRule] = {
    "keep_every": keep_every,
    "compile": compilation,
    "eval_every": eval_every,
    "precision": precision,
}
"""How it is carried out, once its length is decided."""
EVEN_IF_GIVEN = {"lr", "augment", "compile"}
"""Settings whose rule also spells out, or checks, what was given."""
