"""The table of rules that advice follows: from shapes and three statistics of a teacher to strategy, pairs and width.

Sources: [SKD] SpectralKD, arXiv 2412.19055. [EM] From Per-Image Low-Rank to Encoding Mismatch, arXiv 2511.15572.
The papers found what is used here on a few pairs of networks on ImageNet: these are rules of thumb.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from vitcompress.core.errors import UsageError
from vitcompress.core.records import Strategy, WideHeads
from vitcompress.stages.models.geometry import Shape, wide_shapes

What = Literal["strategy", "pairs", "width"]
Kind = Literal["mse", "spectral"]
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Facts:
    """Everything the rules decide by."""

    student: Shape
    student_name: str
    teacher_width: int
    """Of its last tap."""
    teacher_depth: int
    teacher_isotropic: bool
    """Blocks of equal width, not stages."""
    shared: float
    """d95: directions of the dataset's basis that hold 95 % of an image at the last tap, median over images."""
    own: int
    """Singular directions of its own that hold 99 % of an image there; 99 % of the images need no more."""
    strongest: tuple[int, ...]
    """Teacher layers of highest mean intensity, ascending, as many as ``compared_layers``."""

    @property
    def head_size(self) -> int:
        """Channels of one of the student's heads; 1 for a student with stages, whose heads are not known."""
        return self.student.width // (self.student.heads or self.student.width)

    @property
    def kept_heads(self) -> WideHeads | None:
        """What a last block widened to the teacher's width can keep; None when it cannot be widened."""
        choices: tuple[WideHeads, ...] = ("size", "count")
        for keep in choices:
            try:
                wide_shapes(self.student_name, self.student, self.teacher_width, keep=keep)
            except UsageError:
                continue
            return keep
        return None


@dataclass(frozen=True)
class Decision:
    """What has been decided so far."""

    strategy: Strategy | None = None
    wide_heads: WideHeads | None = None
    kind: Kind | None = None
    pairs: Pairs = ()
    width: int | None = None

    def words(self, what: What) -> str:
        """Return the answer to one question; equal answers have equal words."""
        if what == "strategy":
            return str(self.strategy) + (f" (heads keep their {self.wide_heads})" if self.wide_heads else "")
        if what == "width":
            return str(self.width)
        student, teacher = (" ".join(map(str, layers)) for layers in zip(*self.pairs, strict=True))
        return f"{self.kind}, {student} <-> {teacher}"


def compared_layers(student_depth: int, teacher_depth: int) -> int:
    """Return two thirds of the student's layers, 8 of DeiT-Tiny's 12 as published [SKD]; 1 to the lesser depth."""
    return max(1, min(round(2 * student_depth / 3), student_depth, teacher_depth))


def intensity_pairs(strongest: tuple[int, ...], student_depth: int, teacher_depth: int) -> Pairs:
    """Pair teacher layers of the first half with the student's first layers, those of the second with its last.

    0 1 18-23 of 24 go with 0 1 6-11 of 12, as published [SKD]. A layer in the very middle counts as second half.

    ``strongest`` are ascending, no more than ``student_depth``. In the pairs (student layer, teacher layer) both are
    ascending and distinct.
    """
    first = sum(2 * layer + 1 < teacher_depth for layer in strongest)
    student = [*range(first), *range(student_depth - len(strongest) + first, student_depth)]
    return tuple(zip(student, strongest, strict=True))


def _intensity(facts: Facts) -> dict[str, Any]:
    pairs = intensity_pairs(facts.strongest, facts.student.depth, facts.teacher_depth)
    return {"kind": "spectral", "pairs": pairs}


def _last(kind: Kind) -> Callable[[Facts], dict[str, Any]]:
    return lambda facts: {"kind": kind, "pairs": ((facts.student.depth - 1, facts.teacher_depth - 1),)}


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    what: What
    """The question it answers."""
    name: str
    applies: Callable[[Facts, Decision], bool]
    gives: Callable[[Facts], dict[str, Any]]
    """Fields of Decision."""
    reason: str
    """One sentence; ``stages.analysis.advice`` fills in the fields: f are the Facts."""
    source: str


_EM = "[EM] arXiv 2511.15572: "
_SKD = "[SKD] arXiv 2412.19055: "
_NEED = (
    "an image (median) needs {f.shared:g} directions of the basis all images share for 95 % of its energy at the "
    "teacher's last tap, and {f.student_name} is {f.student.width} wide, "
)

RULES = (
    Rule(
        "strategy",
        "student as wide",
        lambda facts, _: facts.student.width >= facts.teacher_width,
        lambda facts: {"strategy": "plain"},
        "{f.student_name} is {f.student.width} wide and the teacher's last tap {f.teacher_width}, so nothing has to be "
        "squeezed.",
        _EM + "the encoding mismatch is one of a narrow student with a wide teacher",
    ),
    Rule(
        "strategy",
        "student with stages",
        lambda facts, _: not facts.student.isotropic,
        lambda facts: {"strategy": "plain"},
        "{f.student_name} has {f.student.depth} stages: widelast needs equal blocks, and lift is published for those.",
        _SKD + "its hierarchical student, Swin-Tiny, is trained unchanged",
    ),
    Rule(
        "strategy",
        "shared basis fits",
        lambda facts, _: facts.shared <= facts.student.width,
        lambda facts: {"strategy": "plain"},
        _NEED + "so they fit.",
        _EM + "dataset-level PCA, against the student's width",
    ),
    Rule(
        "strategy",
        "each image fits",
        lambda facts, _: facts.own <= facts.student.width,
        lambda facts: {"strategy": "lift"},
        _NEED
        + "but no more than {f.own} of its own for 99 % (99th percentile of the images), so a linear map can carry "
        "each image, and it folds away exactly at export.",
        _EM + "sample-wise SVD beside dataset-level PCA, and the remedy Lift",
    ),
    Rule(
        "strategy",
        "no image fits, wide block",
        lambda facts, _: facts.kept_heads is not None,
        lambda facts: {"strategy": "widelast", "wide_heads": facts.kept_heads},
        _NEED
        + "and {f.own} of its own for 99 % (99th percentile of the images), more than a linear map can carry, so the "
        "last block gets the teacher's width, {f.teacher_width}.",
        _EM + "sample-wise SVD beside dataset-level PCA, and the remedy WideLast",
    ),
    Rule(
        "strategy",
        "no image fits, no wide block",
        lambda facts, _: True,
        lambda facts: {"strategy": "lift"},
        _NEED
        + "and {f.own} of its own for 99 % (99th percentile of the images), more than a linear map can carry in full, "
        "but neither the size nor the number of its {f.student.heads} heads divides the teacher's width, "
        "{f.teacher_width}, so only lift is left.",
        _EM + "the remedy Lift, where WideLast cannot be built",
    ),
    Rule(
        "pairs",
        "last to last, lift",
        lambda facts, decided: decided.strategy == "lift",
        _last("spectral"),
        "of a lift only the last tap has the teacher's width, {f.teacher_width}.",
        _EM + "the best published Lift: soft labels and a spectral loss on 11 <-> 23",
    ),
    Rule(
        "pairs",
        "last to last, widelast",
        lambda facts, decided: decided.strategy == "widelast",
        _last("mse"),
        "of a widelast only the last tap has the teacher's width, {f.teacher_width}.",
        _EM + "the best published WideLast: soft labels and an MSE loss on 11 <-> 23",
    ),
    Rule(
        "pairs",
        "stage by stage",
        lambda facts, _: (
            not (facts.teacher_isotropic or facts.student.isotropic) and facts.student.depth == facts.teacher_depth
        ),
        lambda facts: {"kind": "spectral", "pairs": tuple((stage, stage) for stage in range(facts.teacher_depth))},
        "both networks have {f.teacher_depth} stages, so each is compared with its like.",
        _SKD + "Swin-Tiny from Swin-Small, stages 0-3 <-> 0-3",
    ),
    Rule(
        "pairs",
        "grids differ",
        lambda facts, _: not (facts.teacher_isotropic and facts.student.isotropic),
        _last("spectral"),
        "the teacher's {f.teacher_depth} layers and the student's {f.student.depth} have other grids of tokens, so "
        "only the last are compared.",
        _EM + "last layers; nothing is published for such a pair of networks",
    ),
    Rule(
        "pairs",
        "highest intensity",
        lambda facts, _: True,
        _intensity,
        "the layers of highest mean intensity among the teacher's {f.teacher_depth}; those of its first half go with "
        "the student's first layers, the others with its last.",
        _SKD + "layers of highest spectral intensity, as chosen for CaiT-S24",
    ),
    Rule(
        "width",
        "whole heads",
        lambda facts, _: True,
        lambda facts: {"width": min(math.ceil(facts.shared / facts.head_size) * facts.head_size, facts.teacher_width)},
        "plain would do from {width} on: d95 is {f.shared:g} [{low:g}, {high:g}], in whole heads of {f.head_size}, and "
        "no more than the teacher's width.",
        _EM + "dataset-level PCA; taking it up is this project's",
    ),
)
"""Evaluated top to bottom: the first rule that applies answers its question, and the later ones see the answer."""


@lru_cache(maxsize=4096)
def decide(facts: Facts) -> tuple[Decision, dict[What, Rule]]:
    """Return the answers of the table, and the rule behind each."""
    decision = Decision()
    applied: dict[What, Rule] = {}
    for rule in RULES:
        if rule.what not in applied and rule.applies(facts, decision):
            decision = replace(decision, **rule.gives(facts))
            applied[rule.what] = rule
    return decision, applied
