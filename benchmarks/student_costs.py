"""Parameters and multiply-accumulates of every student strategy at full size, counted on networks without weights.

    python benchmarks/student_costs.py

Prints the table of docs/strategies.md: DeiT-Tiny for a CaiT-S24 teacher (width 384), 1000 classes, one image of 224 px.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.records import Cost, ModelSpec
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.stage import student_spec

CLASSES, TEACHER_WIDTH, SIZE = 1000, 384, 224

STUDENTS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({"strategy": "plain"}, "E(192)+12B(192)+N(192)+H(192)"),
    "lift, as trained": ({"strategy": "lift"}, "E(192)+12B(192)+L(192,384)+H(384)"),
    "widelast": ({"strategy": "widelast"}, "E(192)+11B(192)+L(192,384)+B(384)+N(384)+H(384)"),
    "widelast, heads kept": (
        {"strategy": "widelast", "wide_heads": "count"},
        "E(192)+11B(192)+L(192,384)+B(384)+N(384)+H(384)",
    ),
    "uniform, 204 wide": ({"strategy": "uniform", "uniform_width": 204}, "E(204)+12B(204)+N(204)+H(204)"),
    "uniform, auto": ({"strategy": "uniform"}, "E(228)+12B(228)+N(228)+H(228)"),
}
"""Settings of the student, by the name of their row; and its parameters as a sum over layers (docs/strategies.md)."""
FOLDED = "E(192)+12B(192)+R(192)+H(192)"
"""The same of a folded lift."""


def spec_of(settings: dict[str, Any]) -> ModelSpec:
    """The network that these settings mean."""
    return student_spec(StudentConfig(model="deit_tiny_patch16_224", **settings), CLASSES, TEACHER_WIDTH)


def blocks_of(spec: ModelSpec) -> str:
    """Widths and heads of the blocks as built, ``11 of 192x3h, 384x6h``."""
    with torch.device("meta"):
        network = build_model(spec)
    attentions = [module for name, module in network.named_modules() if name.endswith("attn")]
    shapes = [f"{attention.qkv.in_features}x{attention.num_heads}h" for attention in attentions]
    counts = {shape: shapes.count(shape) for shape in shapes}
    return ", ".join(f"{count} of {shape}" if count > 1 else shape for shape, count in counts.items())


@dataclass(frozen=True)
class Row:
    """One student, counted."""

    name: str
    blocks: str
    sum: str
    cost: Cost


def rows() -> list[Row]:
    """Every student, the folded lift among them."""
    found = []
    for name, (settings, terms) in STUDENTS.items():
        spec = spec_of(settings)
        with torch.device("meta"):
            cost = cost_of(build_model(spec), SIZE)
        found.append(Row(name, blocks_of(spec), terms, cost))
        if spec.graph == "lift-kept":
            torch.manual_seed(0)  # folding needs numbers; their rank is full, as a trained projector's is
            lift: Any = build_model(spec)
            found.append(Row("lift, as deployed", blocks_of(spec), FOLDED, cost_of(folded_from_lift(lift)[0], SIZE)))
    return found


def table() -> str:
    """The rows as Markdown."""
    lines = ["| student | blocks | sum | parameters | GMACs |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row.name} | {row.blocks} | {row.sum} | {row.cost.parameters:,} | {row.cost.macs / 1e9:.3f} |"
        for row in rows()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
