"""Accuracy class by class: the teacher against the deployed student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitcompress.pipeline.report.html.names import deployed_key, key_of
from vitcompress.pipeline.report.html.parts import Cell, Table, columns

SHOWN = 12
"""Classes shown unfolded where there are more than twice as many."""


@dataclass(frozen=True)
class Classes:
    """The tables, or why there are none."""

    shown: Table | None = None
    folded: Table | None = None
    """All classes, where only the worst are shown."""
    summary: str = ""
    reason: str = ""


def classes(report: dict[str, Any]) -> Classes:
    """Classes sorted by what the deployed student lost in them, most first."""
    rows = {key_of(row): row for row in report["accuracy"]}
    student = rows.get(deployed_key(report))
    teacher = rows.get(("teacher", "torch", "fp32"), rows.get(("teacher", "onnx", "fp32")))
    images, names = report["class_images"], report["class_names"]
    counts = [found["class_right"] if found else [] for found in (teacher, student)]
    if not images or any(len(right) != len(images) for right in counts):
        reason = (student or {}).get("reason") or "records of earlier versions of this program hold no counts by class"
        return Classes(reason=reason)
    lines = []
    for index, (count, was, now) in enumerate(zip(images, *counts, strict=True)):
        lost = 100 * (was - now) / count if count else 0.0
        name = names[index] if index < len(names) else f"class {index}"
        lines.append((lost, was - now, index, name, count, was, now))
    lines.sort(key=lambda line: (-line[0], -line[1], line[2]))
    body = [
        [
            Cell(name),
            Cell(str(count), sort=count),
            _share(was, count),
            _share(now, count),
            _lost(lost, number, count),
        ]
        for lost, number, _, name, count, was, now in lines
    ]
    head = columns("class", "images", "teacher right, %", "student right, %", "lost, points")
    worse, better = sum(line[1] > 0 for line in lines), sum(line[1] < 0 for line in lines)
    summary = (
        f"Of {len(lines)} classes the student is worse in {worse}, better in {better} and level in "
        f"{len(lines) - worse - better}. With few images in a class a difference of one or two images is chance."
    )
    if len(body) <= 2 * SHOWN:
        return Classes(shown=Table("By class, most lost first", head, body), summary=summary)
    return Classes(
        shown=Table(f"The {SHOWN} classes that lost most", head, body[:SHOWN]),
        folded=Table(f"All {len(body)} classes, most lost first", head, body, tall=True),
        summary=summary,
    )


def _lost(points: float, number: int, count: int) -> Cell:
    """Points lost, and images; a minus for what was won."""
    if not number:
        return Cell("0" if count else "-", sort=0.0)
    return Cell(f"{points:+.1f}", small=f"{number:+d} image{'' if abs(number) == 1 else 's'}", sort=points)


def _share(right: int, count: int) -> Cell:
    return Cell(f"{100 * right / count:.1f}", sort=100 * right / count) if count else Cell("-")
