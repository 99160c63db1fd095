"""The hand-offs of the analysis of features: what was read, what is advised, and where the numbers and figures are."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import Strategy, WideHeads


class Recommendation(Record):
    """One answer of the advice, and what it rests on."""

    what: Literal["strategy", "pairs", "width"]
    value: str | None
    """In words; None when nothing can be said (``reason`` says why)."""
    rule: str
    """The rule that applied, by its name in the table of ``stages.analysis.rules``."""
    reason: str
    """One plain sentence, with the numbers."""
    numbers: dict[str, float]
    """Every number behind it, by its name in words; never NaN."""
    confidence: float | None
    """Share of bootstrap draws of the images, 0 to 1, that give the same answer, mean over the ways in which the
    features were measured (those of ``answers``; raw alone where that is empty). It tells how much the answer depends
    on which images were read and on how energy is measured, not whether the rule is right. None without a value."""
    source: str
    """Paper, and the part of it, in words."""
    measure: str = "raw"
    """The way of measuring that it follows, in words: raw, unless more of the ways give another answer."""
    sampling: float | None = None
    """The confidence by that way alone: how much the answer depends on the images. None without a value."""
    answers: dict[str, str] = Field(default_factory=dict)
    """The answer by each way of measuring, in words; empty where nothing can be said."""


class Advice(Record):
    """What a teacher's features say about how to train a student, before anything is trained."""

    strategy: Strategy | None
    """None when nothing is recommended."""
    kind: Literal["mse", "spectral"] | None
    """For ``distill.features``: how the taps are compared."""
    pairs: tuple[tuple[int, int], ...]
    """Likewise: (student layer, teacher layer), counted from 0; empty when nothing is recommended."""
    wide_heads: WideHeads | None
    """What a widened block keeps; None unless ``strategy`` is widelast."""
    images: int
    """Images that the teacher was read on."""
    recommendations: tuple[Recommendation, ...]
    summary: str
    """One line; names what is weak."""


class AnalyzeRecord(Record):
    """What the teacher's features look like, and what follows from them."""

    volatile: ClassVar[frozenset[str]] = frozenset({"files", "forward_seconds", "measure_seconds"})

    images: int = 0
    """Images that it was read on; 0: it was not (``reason``)."""
    sample: str = ""
    """Which images, in words."""
    measures: FileRef | None = None
    """Every number, as arrays (``stages.analysis.write``)."""
    files: tuple[FileRef, ...] = ()
    """JSON, tables and figures."""
    advice: Advice | None = None
    forward_seconds: float = 0.0
    measure_seconds: float = 0.0
    """Apart from the forward pass."""
    reason: str = ""
    """Why there is no analysis."""


class DynamicsRecord(Record):
    """How the student's features changed while it was trained, beside the teacher's."""

    networks: tuple[str, ...] = ()
    """What was read, in order of training, the teacher first."""
    files: tuple[FileRef, ...] = ()
    """JSON, tables and figures."""
    approach: tuple[dict[str, Any], ...] = ()
    """Per quantity, whether the student's curve over layers came closer to the teacher's."""
    missing: tuple[str, ...] = ()
    """Snapshots that could not be read, and why."""
    reason: str = ""
    """Why there is no analysis."""
