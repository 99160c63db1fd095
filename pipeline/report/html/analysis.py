"""The analysis of features: its sentences, and its figures where the run still has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.pipeline.report.analysis import measures
from vitcompress.pipeline.report.html.embed import Picture, embedded
from vitcompress.pipeline.report.html.parts import Cell, Table, columns

_SUBJECTS = {
    "approach": "Distance of the student's curves from the teacher's, over training",
    "over-training": "Curves over layers as they changed during training",
    "compared": "Curves over layers of several networks",
    "beside": "Teacher and trained student side by side",
    "pca": "One basis for all images against one for each",
    "rank": "Directions that an image needs, by layer",
    "ways": "Whether it matters how energy is measured",
    "dynamics": "Entropy and magnitude by layer",
    "intensity": "Spectral intensity by layer",
    "sep": "Where a token's spectral energy lies",
    "spectrum": "Spectrum over channels by layer",
}
_FIRST = ("approach", "over-training", "compared", "beside")
"""Shown unfolded; figures of one network are folded behind them."""


@dataclass(frozen=True)
class Drawn:
    """A figure of the analysis."""

    title: str
    picture: Picture


@dataclass(frozen=True)
class Analysis:
    """What the section shows."""

    reason: str
    """Why there is no analysis; empty when there is one."""
    sample: str
    advice: str
    recommendations: Table | None
    sentences: list[str]
    missing: list[str]
    first: list[Drawn]
    folded: list[Drawn]


def analysis(report: dict[str, Any], root: Path) -> Analysis:
    """The section of ``report``, with pictures read from the run at ``root``."""
    found = report["analysis"]
    drawn = {name: Drawn(_title(name), embedded(root, path)) for name, path in found["figures"].items()}
    missing = list(found["missing"]) + [
        f"{one.title}: {one.picture.reason}." for one in drawn.values() if one.picture.reason
    ]
    there = {name: one for name, one in drawn.items() if not one.picture.reason}
    return Analysis(
        reason=found["reason"] if not found["images"] else "",
        sample=found["sample"],
        advice=_advice(report),
        recommendations=_recommendations(found["advice"]),
        sentences=[row["sentence"] for row in found["approach"]],
        missing=missing,
        first=[there[name] for name in _FIRST if name in there],
        folded=[one for name, one in there.items() if name not in _FIRST],
    )


def _title(name: str) -> str:
    kind, _, network = name.partition("-")
    if name in _SUBJECTS:
        return _SUBJECTS[name]
    subject = _SUBJECTS.get(kind)
    return f"{subject}: {network.replace('-', ' ')}" if subject else name


def _advice(report: dict[str, Any]) -> str:
    advice, used = report["analysis"]["advice"], report["training"]["student"]["strategy"]
    if advice is None:
        return ""
    differs = "" if advice["strategy"] in (used, None) else f" This run's student is {used}."
    return f"{advice['summary']}.{differs}"


def _recommendations(advice: dict[str, Any] | None) -> Table | None:
    if advice is None:
        return None
    rows = [
        [
            Cell(entry["what"]),
            Cell(entry["value"] or "nothing"),
            Cell("-" if entry["confidence"] is None else f"{entry['confidence']:.2f}", sort=entry["confidence"]),
            Cell(measures(entry)),
            Cell(entry["reason"]),
            Cell(entry["source"]),
        ]
        for entry in advice["recommendations"]
    ]
    head = columns(
        "question", "advice", "confidence", "measures", "why", "source", words=("advice", "measures", "why", "source")
    )
    return Table("What the teacher's features advise", head, rows)
