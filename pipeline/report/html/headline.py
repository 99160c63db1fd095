"""The verdict in one sentence and a few figures, for a reader who has five seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitcompress.pipeline.report.trained import STARTS
from vitcompress.pipeline.report.wording import (
    Footnotes,
    gate_limit,
    gate_value,
    interval,
    megabytes,
    millions,
    significant,
)

VERDICT_KINDS = {"PASS": ("pass", "✓"), "FAIL": ("fail", "✕"), "UNDECIDED": ("inconclusive", "?")}
"""Word of a verdict -> style class and sign."""
PLAIN_VERDICT = ("unmeasured", "–")

_PERCENT = "\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class BigFigure:
    """One of the few."""

    name: str
    value: str
    interval: str
    against: str
    """What it is to be seen against."""


def sentence(report: dict[str, Any]) -> str:
    """The deployed student against the teacher."""
    head = report["headline"]
    student = head["student"].removesuffix(" (deployed)")
    images = f"{report['data']['val_images']:,} held-out images"
    top1 = head["student_top1"]
    right = (
        f"is right on {top1['value']:.2f}{_PERCENT} of {images}, the teacher on {_spoken(head['teacher_top1'])}"
        if top1["value"] is not None
        else f"was not measured on the {images} ({top1['reason']})"
    )
    mine, theirs = head["student_p50_ms"], head["teacher_p50_ms"]
    if mine["value"] is None or theirs["value"] is None:
        lacking = mine if mine["value"] is None else theirs
        return f"The deployed {student}, {right}. Its speed was not compared: {lacking['reason'].rstrip('.')}."
    return (
        f"The deployed {student}, {right}; one image takes it {significant(mine['value'])} ms, "
        f"the teacher {significant(theirs['value'])} ms."
    )


def big_figures(report: dict[str, Any]) -> list[BigFigure]:
    """Top-1 drop, speed-up, size and parameters; what the teacher was worth, where that is known."""
    head, notes, control = report["headline"], Footnotes(), report["training"]["control"]
    size, parameters = head["bytes"], head["parameters"]
    return [
        _measured("Top-1 drop", head["drop"], " points", _drop_against(head["drop"])),
        _measured("Speed-up", head["speedup"], "×", "against the teacher, one image at a time"),
        BigFigure(
            "Size",
            megabytes(size["student"], "", notes),
            f"{size['ratio']:.2f}× smaller" if size["ratio"] >= 1 else f"{1 / size['ratio']:.2f}× larger",
            f"the teacher: {megabytes(size['teacher'], '', notes)}",
        ),
        BigFigure(
            "Parameters",
            millions(parameters["student"], "", notes),
            f"{parameters['ratio']:.2f}× fewer" if parameters["ratio"] >= 1 else f"{1 / parameters['ratio']:.2f}× more",
            f"the teacher: {millions(parameters['teacher'], '', notes)}",
        ),
        *([_worth(control)] if control else []),
    ]


def _worth(control: dict[str, Any]) -> BigFigure:
    against = f"over labels alone{STARTS[control.get('start', '')]}, at equal {control['match']}"
    return _measured("The teacher's worth", control["gain"], " points", against)


def _spoken(given: dict[str, Any]) -> str:
    return f"an unmeasured share ({given['reason']})" if given["value"] is None else f"{given['value']:.2f}{_PERCENT}"


def _drop_against(drop: dict[str, Any]) -> str:
    better = drop["value"] is not None and drop["value"] < 0
    return "against the teacher: below zero, the student is better" if better else "against the teacher, same images"


def reasons(report: dict[str, Any], which: str) -> list[str]:
    """The lines of the verdict's ``blocking`` or ``open``; a gate's with what was measured against its limit."""
    gates = {f"{row['artifact']} {row['label']}: {row['verdict']}": row for row in report["gates"]}
    return [_with_numbers(line, gates.get(line)) for line in report["verdict"][which]]


def _with_numbers(line: str, gate: dict[str, Any] | None) -> str:
    if gate is None:
        return line
    found = gate["why"] if gate["value"] is None else gate_value(gate)
    return f"{line} ({found.rstrip('.')}; limit {gate_limit(gate)})"


def _measured(name: str, given: dict[str, Any], unit: str, against: str) -> BigFigure:
    if given["value"] is None:
        return BigFigure(name, "unmeasured", "", given["reason"])
    number = f"{given['value']:.2f}{unit}".replace("-", "−")
    ends = interval(given, ".2f").strip().replace("-", "−")
    return BigFigure(name, number, f"{ends} at 95{_PERCENT}" if ends else "no interval", against)
