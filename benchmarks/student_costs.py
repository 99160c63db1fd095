"""Parameters and multiply-accumulates of every student strategy at full size, counted on networks without weights.

    python benchmarks/student_costs.py

Prints the table of docs/strategies.md: DeiT-Tiny for a CaiT-S24 teacher (width 384), 1000 classes, one image of 224 px.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.records import ModelSpec
from stages.fold.stage import folded_from_lift
from stages.models.build import build_model, cost_of
from stages.student.config import StudentConfig
from stages.student.stage import student_spec

CLASSES, TEACHER_WIDTH, SIZE = 1000, 384, 224

STUDENTS: dict[str, dict[str, Any]] = {
    "plain": {"strategy": "plain"},
    "lift, as trained": {"strategy": "lift"},
    "widelast": {"strategy": "widelast"},
    "widelast, heads kept": {"strategy": "widelast", "wide_heads": "count"},
    "widelast, last three": {"strategy": "widelast", "wide_blocks": 3},
    "uniform, 204 wide": {"strategy": "uniform", "uniform_width": 204},
    "uniform, auto": {"strategy": "uniform"},
}
"""Settings of the student, by the name of their row."""


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


def rows() -> list[tuple[str, str, int, int]]:
    """Name, blocks, parameters and MACs of every student, the folded lift among them."""
    found = []
    for name, settings in STUDENTS.items():
        spec = spec_of(settings)
        with torch.device("meta"):
            cost = cost_of(build_model(spec), SIZE)
        found.append((name, blocks_of(spec), cost.parameters, cost.macs))
        if spec.graph == "lift-kept":
            torch.manual_seed(0)  # folding needs numbers; their rank is full, as a trained projector's is
            folded = cost_of(folded_from_lift(build_model(spec))[0], SIZE)  # type: ignore[arg-type]
            found.append(("lift, folded", blocks_of(spec), folded.parameters, folded.macs))
    return found


def table() -> str:
    """The rows as Markdown."""
    lines = ["| student | blocks | parameters | GMACs |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {blocks} | {params:,} | {macs / 1e9:.3f} |" for name, blocks, params, macs in rows()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
