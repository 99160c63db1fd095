"""Images that the teacher and an artifact answer differently, with their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.pipeline.report.html.embed import Picture, embedded
from vitcompress.pipeline.report.html.names import deployed_key, key_of

KINDS = {
    "lost": "the teacher was right, the student is wrong",
    "won": "the teacher was wrong, the student is right",
    "other": "both are wrong, differently",
}
UNFOLDED = 18
"""Images shown of an artifact before the rest is folded."""


@dataclass(frozen=True)
class Flipped:
    """One image."""

    image: str
    kind: str
    label: str
    teacher: str
    student: str
    """Classes by name."""
    teacher_confidence: float
    student_confidence: float
    """0 to 1."""
    picture: Picture


@dataclass(frozen=True)
class Flips:
    """Those of one artifact."""

    artifact: str
    counts: dict[str, int]
    """By kind."""
    shown: list[Flipped]
    deployed: bool

    @property
    def total(self) -> int:
        """Images answered differently."""
        return sum(self.counts.values())


def flips(report: dict[str, Any], root: Path) -> list[Flips]:
    """Of every artifact that was compared image by image, the deployed one first.

    Args:
        report: of ``document.build``.
        root: the run that its paths are relative to.
    """
    labels = {key_of(row): row["label"] for row in report["models"]}
    deployed = deployed_key(report)
    pictures: dict[str, Picture] = {}
    found = []
    for one in report["flips"]:
        key = key_of(one)
        shown = [_flipped(flip, report["class_names"], root, pictures) for flip in one["shown"]]
        counts = {kind: one[kind] for kind in KINDS}
        found.append(Flips(labels.get(key, " ".join(key)), counts, shown, deployed=key == deployed))
    return sorted(found, key=lambda one: not one.deployed)


def _flipped(flip: dict[str, Any], names: list[str], root: Path, pictures: dict[str, Picture]) -> Flipped:
    path = flip["thumbnail"]
    if path not in pictures:
        pictures[path] = embedded(root, path) if path else Picture(reason="no picture was kept")
    kind = "lost" if flip["teacher"] == flip["label"] else "won" if flip["student"] == flip["label"] else "other"
    label, teacher, student = (
        names[number] if 0 <= number < len(names) else f"class {number}"
        for number in (flip["label"], flip["teacher"], flip["student"])
    )
    return Flipped(
        image=flip["image"],
        kind=kind,
        label=label,
        teacher=teacher,
        student=student,
        teacher_confidence=flip["teacher_confidence"],
        student_confidence=flip["student_confidence"],
        picture=pictures[path],
    )
