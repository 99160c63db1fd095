"""The arms, teachers and questions of docs/evidence/plan.md, as settings of the recipe `folder` and as differences."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

ALPHA_0 = {"alpha": 0.0}
SIZE, PATCH, BATCH = 40, 8, 64
SEEDS, TUNING_SEED = (0, 1, 2, 3, 4), 100
FACTORS = (1.0, 0.5, 2.0)
"""Of the product's own learning rate, tried for every arm."""
CEILING, LEAST_LEAD = 4, 3.0
"""How many times longer the ceiling trains, and the points that a teacher must be above it."""
LONGER = ("plain:labels", "plain:soft", "lift:labels", "uniform:labels")
"""Also trained for equal seconds; the first two are asked for by questions."""
LONG = (
    "plain:labels", "plain:soft", "plain:soft+mse", "plain:soft+spectral",
    "lift:labels", "lift:soft", "lift:soft+spectral", "widelast:labels", "widelast:soft", "widelast:soft+mse",
    "plain/init:labels", "plain/init:soft", "plain/init:soft+mse", "lift/init:soft+spectral",
)  # fmt: skip
LONG_SEEDS = (0, 1, 2)
"""Of those that also train for a study's `long` epochs: does what a short training shows last?"""
LIVE = ("lift:soft+spectral", "widelast:soft+mse", *LONGER)
"""Trained once, one after the other, with the teacher live where there is one, for their seconds: machines differ, and
so do the days of one machine. The longer of the first two gives the seconds of equal compute."""


def _terms(loss: str) -> dict[str, Any]:
    """The settings of a loss of the plan: `labels`, `soft`, `soft+FEATURE` or `FEATURE`."""
    *logits, last = loss.split("+")
    features = {
        "mse": [{"kind": "mse"}],
        "spectral": [{"kind": "spectral"}],
        "projector": [{"kind": "mse", "match": "projector"}],
    }.get(last, [])
    return {"features": features, **({} if "soft" in (*logits, last) else ALPHA_0)}


_LOSSES = {
    "plain": ("labels", "soft", "soft+mse", "soft+spectral", "soft+projector", "mse", "spectral", "projector"),
    "lift": ("labels", "soft", "soft+spectral", "mse"),
    "widelast": ("labels", "soft", "soft+mse", "spectral"),
    "uniform": ("labels", "soft", "soft+mse"),
    "plain/init": ("labels", "soft", "soft+mse"),
    "lift/init": ("soft+spectral",),
    "plain/xavier": ("labels", "soft"),
}
_INITS = {"": "random", "init": "teacher", "xavier": "xavier"}
"""First weights, by what follows the name of a student."""
ARMS: dict[str, dict[str, Any]] = {
    f"{student}:{loss}": {
        "student": {
            "strategy": student.partition("/")[0],
            "init": _INITS[student.partition("/")[2]],
        },
        "distill": _terms(loss),
    }
    for student, losses in _LOSSES.items()
    for loss in losses
}
"""What each arm sets beside the defaults."""
LATER = tuple(arm for arm in ARMS if "/xavier" in arm)


IDEAS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain:soft+whitened": ("whitened", ARMS["plain:soft+mse"]),
    "plain:soft+rising": ("rising", ARMS["plain:soft"]),
}
"""Beyond the papers: the idea of `ideas.py`, and the arm that it changes. They are trained after all arms."""


def settings_of(arm: str) -> dict[str, Any]:
    """What an arm, or an idea, sets beside the defaults."""
    return ARMS[arm] if arm in ARMS else IDEAS[arm][1]


def asks_teacher(arm: str) -> bool:
    """Whether a training of this arm runs the teacher."""
    return not arm.endswith(":labels")


def needs_width(arm: str) -> bool:
    """Whether its student depends on the teacher's width, even if it learns from labels alone."""
    return arm.partition(":")[0] not in ("plain", "plain/xavier")


def needs_teacher(arm: str) -> bool:
    """Whether its result depends on the teacher's weights at all."""
    return asks_teacher(arm) or "/init" in arm


def blocks_of(width: int, depth: int, heads: int) -> dict[str, Any]:
    """Arguments of a ViT for the images of the studies."""
    return {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": PATCH, "img_size": SIZE}


STUDENT = {"model": "deit_tiny", "args": blocks_of(48, 6, 3)}


@dataclass(frozen=True)
class Study:
    """A set of images and a teacher."""

    images: str
    epochs: int
    """Of a student."""
    tries: tuple[dict[str, Any], ...]
    """Settings of the teacher, the next taken where one does not beat the ceiling."""
    init: str = "random"
    """First weights of students whose arm names none."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Of students, beside what the product chooses."""
    later: bool = False
    """Whether it has the arms that were added to the plan after its answers."""
    long: int | None = None
    """Epochs of ``LONG``, where they are trained."""
    flip: bool = True
    batch: int | str = BATCH
    """Of a student; teachers have ``BATCH``."""
    pretrained: bool = False
    """Whether the teacher has been trained before, and is fine-tuned on *train* alone."""
    gpu: bool = False
    """Whether it trains on a GPU, asks the teacher in every step, and compares seconds of the clock."""
    size: int = SIZE
    """Pixels of an image's side."""
    student: dict[str, Any] = field(default_factory=lambda: STUDENT)


def _scratch(epochs: int, width: int = 144) -> dict[str, Any]:
    args = blocks_of(width, 8, width // 16)
    shared = {"model": "deit_tiny", "init": "scratch", "batch_size": BATCH, "label_smoothing": 0.1}
    return {**shared, "args": args, "epochs": epochs}


def _longer(before: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The next try: the weights of the one before, trained on."""
    kept = {key: before[key] for key in ("model", "args", "batch_size", "label_smoothing")}
    return kept | {"init": "file", "from": "try before", "epochs": epochs, "tune": "full"}


_LIGHT = {"crop_scale": [0.5, 1.0], "auto_augment": None, "color_jitter": 0.0, "random_erasing": 0.0,
          "normalize_on": "device"}  # fmt: skip
"""What `auto` was for the teacher of fashion when it was trained, before the rule knew the size of a network."""
_WHOLE = {**_LIGHT, "crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "hflip": 0.0}
"""Letters are drawn turned, moved and resized."""
_VIT = {"model": "vit_small_patch14_dinov2", "args": {"img_size": 70}, "init": "file", "batch_size": 64}
STUDIES = {
    "letters": Study("letters", 16, (_scratch(12), _scratch(24), _scratch(24, 240)), flip=False, batch=32,
                     init="xavier", augment=_WHOLE, long=40),
    "fashion": Study("fashion", 10, ({**_scratch(10), "augment": _LIGHT}, _longer(_scratch(10), 5), _scratch(20, 240)),
                     long=43, later=True),
    "fashion-vit": Study("fashion", 10, ({**_VIT, "tune_epochs": 2}, {**_VIT, "tune_epochs": 4}), pretrained=True),
    "drawings": Study("drawings", 30, (_scratch(60), _scratch(120))),
    "drawings-vit": Study("drawings", 30, ({**_VIT, "tune_epochs": 4}, {**_VIT, "tune_epochs": 8}), pretrained=True),
    "imagenet100": Study("imagenet100", 100, ({"model": "cait_s24", "init": "pretrained"},), batch=256,
                         pretrained=True, gpu=True, size=224, student={"model": "deit_tiny"}),
}  # fmt: skip
"""43 epochs are what the product chooses for the students of fashion that start from the teacher's weights. The last is
prepared for who has ImageNet and a GPU (docs/evidence/gpu.md); it has not run."""


def arms_of(study: str) -> tuple[str, ...]:
    """All arms of a study."""
    return tuple(arm for arm in ARMS if STUDIES[study].later or arm not in LATER)


@dataclass(frozen=True)
class Question:
    """One of the twelve differences that are decided together: all its contrasts must hold."""

    name: str
    asks: str
    contrasts: tuple[dict[str, int], ...]
    """Each a sum of arms (``ARM@compute`` trained for equal seconds) with their factors."""
    swapped: bool = False
    """Whether a difference above 0 speaks against what is asked."""

    @property
    def arms(self) -> tuple[str, ...]:
        """All that it compares."""
        return tuple(dict.fromkeys(arm for one in self.contrasts for arm in one))

    def lengthened(self) -> Question:
        """The same of a study's `long` trainings, less the contrasts that they lack."""
        kept = [one for one in self.contrasts if set(LONG).issuperset(one)]
        contrasts = tuple({f"{arm}@long": factor for arm, factor in one.items()} for one in kept)
        return replace(self, asks=self.asks.removesuffix(" and at equal compute"), contrasts=contrasts)


def _less(arm: str, other: str) -> dict[str, int]:
    return {arm: 1, other: -1}


def _more(gain: dict[str, int], than: dict[str, int]) -> dict[str, int]:
    """The difference of two differences."""
    names = dict.fromkeys((*gain, *than))
    found = {name: gain.get(name, 0) - than.get(name, 0) for name in names}
    return {name: factor for name, factor in found.items() if factor}


def _questions() -> tuple[Question, ...]:
    soft, labels = "plain:soft", "plain:labels"
    found = [
        Question("Q1", f"soft+{kind} on a plain student fails", (_less(f"plain:soft+{kind}", soft),), swapped=True)
        for kind in ("mse", "spectral", "projector")
    ]
    repaired = {"lift": "soft+spectral", "widelast": "soft+mse"}
    for student, loss in repaired.items():
        gain = _less(f"{student}:{loss}", f"{student}:soft")
        plain = _less(f"plain:{loss}", soft)
        found.append(Question("Q2", f"{loss} teaches {student}, and more than plain", (gain, _more(gain, plain))))
    for student, loss in repaired.items():
        ours = f"{student}:{loss}"
        both = (_less(ours, soft), _less(ours, f"{soft}@compute"))
        found.append(Question("Q3", f"{ours} beats {soft}, at equal epochs and at equal compute", both))
    for student, loss in repaired.items():
        ours = f"{student}:{loss}"
        wider = tuple(_less(ours, f"uniform:{one}") for one in ("soft", "soft+mse"))
        more = _more(_less(ours, soft), _less(f"{student}:labels", labels))
        found.append(Question("Q4", f"{ours} beats uniform, and gains more than with labels alone", (*wider, more)))
    found.append(Question("Q5", "soft KD beats labels alone in the same time",
                          (_less(f"{soft}@compute", f"{labels}@compute"),)))  # fmt: skip
    terms = [_less(soft, labels), *(_less(f"plain:soft+{kind}", soft) for kind in ("mse", "spectral", "projector"))]
    for loss in ("labels", "soft"):
        gain = _less(f"plain/init:{loss}", f"plain:{loss}")
        asks = f"first weights of the teacher are worth more than any term ({loss})"
        found.append(Question("Q6", asks, tuple(_more(gain, term) for term in terms)))
    return tuple(found)


QUESTIONS = _questions()
LONG_QUESTIONS = tuple(
    found for one in QUESTIONS if one.name in ("Q1", "Q2", "Q3") and (found := one.lengthened()).contrasts
)
"""What the claim rests on, asked again of long trainings, and decided together."""
OTHERS = (
    *(_less(f"plain:{kind}", "plain:labels") for kind in ("mse", "spectral", "projector")),
    _less("lift:mse", "lift:labels"),
    _less("widelast:spectral", "widelast:labels"),
    _less("lift:labels", "plain:labels"),
    _less("widelast:labels", "plain:labels"),
    _less("lift/init:soft+spectral", "plain/init:soft"),
)
"""Differences that answer nothing; they are told without a correction."""
ADDED = (
    _less("plain/init:soft+mse", "plain/init:soft"),
    *(_less(f"plain/xavier:{loss}", f"plain:{loss}") for loss in ("labels", "soft")),
    _less("plain:soft@long", "plain:labels@long"),
    _less("plain:soft+mse@long", "plain:labels@long"),
    _less("lift:labels@long", "plain:labels@long"),
    _less("lift:soft+spectral@long", "plain:soft+spectral@long"),
    _less("lift:soft+spectral@long", "plain:soft+mse@long"),
    _less("widelast:labels@long", "plain:labels@long"),
    _less("widelast:soft+mse@long", "plain:soft+mse@long"),
    _less("plain/init:labels@long", "plain:soft+mse@long"),
    _less("plain/init:soft@long", "plain/init:labels@long"),
    _less("plain/init:soft+mse@long", "plain/init:labels@long"),
    _less("lift/init:soft+spectral@long", "plain/init:labels@long"),
    _less("lift/init:soft+spectral@long", "lift:soft+spectral@long"),
)
"""Likewise, of what was added to the plan after its answers."""
