"""Which layers are compared: pairs counted from the front, checked against both networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitcompress.core.errors import UsageError
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerPair:
    """One student layer compared with one teacher layer, in one way."""

    kind: str
    student: int
    teacher: int
    match: Literal["pool", "projector"]
    weight: float
    """Of this pair in the loss: ``beta * w / pairs of the term``."""

    @property
    def name(self) -> str:
        """As logged, for example ``spectral 11<-23`` or ``mse 0<-0 (projector)``."""
        return f"{self.kind} {self.student}<-{self.teacher}" + (" (projector)" if self.match == "projector" else "")

    @property
    def key(self) -> str:
        """As a module's name."""
        return f"{self.kind}_{self.student}_{self.teacher}"


def resolved_features(config: DistillConfig, student_depth: int, teacher_depth: int) -> tuple[FeatureTerm, ...]:
    """Return the feature terms with every layer as a non-negative index.

    A UsageError is raised if a network does not have a layer, with the range it has, or a comparison is given twice.
    """
    terms: list[FeatureTerm] = []
    seen: set[tuple[str, str, int, int]] = set()
    for number, term in enumerate(config.features):
        key = f"distill.features.{number}.pairs"
        pairs = []
        for student, teacher in _listed(term):
            for who, layer, depth in (("student", student, student_depth), ("teacher", teacher, teacher_depth)):
                if not -depth <= layer < depth:
                    raise UsageError(
                        f"{key} has {who} layer {layer}; the {who} has {depth} layers, "
                        f"0 to {depth - 1} (or -{depth} to -1 from the end)."
                    )
            pair = (student % student_depth, teacher % teacher_depth)
            if (term.kind, term.match, *pair) in seen:
                raise UsageError(
                    f"{key} compares student layer {pair[0]} with teacher layer {pair[1]} by {term.kind} "
                    f"({term.match}) a second time; give each comparison once, a higher weight counts it more."
                )
            seen.add((term.kind, term.match, *pair))
            pairs.append(pair)
        terms.append(term.model_copy(update={"pairs": tuple(pairs)}))
    return tuple(terms)


def layer_pairs(config: DistillConfig, student_depth: int, teacher_depth: int) -> tuple[LayerPair, ...]:
    """Return the comparisons that have a weight, in the order of the config; raises as ``resolved_features`` does."""
    return tuple(
        LayerPair(term.kind, student, teacher, term.match, config.beta * term.weight / len(_listed(term)))
        for term in resolved_features(config, student_depth, teacher_depth)
        if config.beta * term.weight > 0
        for student, teacher in _listed(term)
    )


def _listed(term: FeatureTerm) -> tuple[tuple[int, int], ...]:
    return ((-1, -1),) if term.pairs == "last" else term.pairs


def student_layers(pairs: tuple[LayerPair, ...]) -> tuple[int, ...]:
    """Return the student's layers to tap, each once, ascending."""
    return tuple(sorted({pair.student for pair in pairs}))


def teacher_layers(pairs: tuple[LayerPair, ...]) -> tuple[int, ...]:
    """Return the teacher's layers to tap, each once, ascending: its taps are in this order everywhere."""
    return tuple(sorted({pair.teacher for pair in pairs}))


def check_alignable(pairs: tuple[LayerPair, ...], student: dict[int, Shape], teacher: dict[int, Shape]) -> None:
    """Refuse, by a UsageError, pairs of taps of which one is not a map ``[B, C, H, W]``; shapes are by layer."""
    for pair in pairs:
        ours, theirs = student[pair.student], teacher[pair.teacher]
        if len(ours) != 4 or len(theirs) != 4:
            raise UsageError(
                f"'{pair.name}' cannot be compared: the student's tap is {list(ours)}, the teacher's {list(theirs)}; "
                "both must be maps [batch, channels, height, width]; choose other layers in distill.features."
            )
