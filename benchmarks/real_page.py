"""docs/real.md out of the results of `real.py`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from real_cells import Cell

HEAD = """# Real images, real weights

How the defaults do against plain timm loops of the same steps, and what the teacher was worth. Everything on this page
was written by one command:

    python benchmarks/real.py

Teacher: ViT-S/14 at 98 px with real weights (DINOv2's, fine-tuned by a package's author to predict saliency: not the
published features, and no classifier). Student: DeiT-Tiny at 112 px, strategy `lift`. Plain loops
(`benchmarks/real_plain.py`): AdamW, one cycle, bfloat16 autocast, flips; 3e-4 and layer decay 0.75 for the teacher,
1e-3 for the student, at every batch size. Top-1 on held-out images, percent.
"""


def page(found: dict[str, Any], left_out: Sequence[str], cells: Sequence[Cell], seeds: int) -> str:
    """The whole page.

    Args:
        found: results by key.
        left_out: keys for which there was no time.
        cells: of seed 0, in order.
        seeds: of the first table.
    """
    values = {key: entry["value"] for key, entry in found.items()}
    machine = values["machine"]
    spent = sum(entry["took_seconds"] for entry in found.values()) / 60
    parts = [
        HEAD,
        f"Machine: {machine['processor']}, {machine['cores']} cores, torch {machine['packages']['torch']}; "
        f"{spent:.0f} minutes of measuring.\n",
        _table(values, seeds),
        _cells(values, cells),
        _control(values),
        _shares(values),
        _advice(values),
    ]
    if left_out:
        parts.append("## Not measured\n\nThere was no time for: " + ", ".join(f"`{key}`" for key in left_out) + ".\n")
    return "\n".join(part for part in parts if part)


def _mean(values: dict[str, Any], prefix: str, seeds: int, field: str) -> list[float]:
    keys = [f"{prefix} fashion-2000-batch64-seed{seed}" for seed in range(seeds)]
    return [values[key][field] for key in keys if key in values]


def _told(numbers: Sequence[float]) -> str:
    if not numbers:
        return "not measured"
    each = f" ({', '.join(f'{number:.1f}' for number in numbers)})" if len(numbers) > 1 else ""
    return f"{mean(numbers):.1f}{each}"


def _table(values: dict[str, Any], seeds: int) -> str:
    """2,000 images, batch 64, by seed."""
    rows = [
        ("teacher, plain loop", "plain-teacher", "top1"),
        ("teacher, ours", "teacher", "top1"),
        ("student, plain loop, labels", "plain-student", "top1"),
        ("student, ours, random first weights, labels", "random", "labels"),
        ("student, ours, random first weights, with the teacher", "random", "with_teacher"),
        ("student, ours, defaults (first weights of the teacher)", "default", "with_teacher"),
    ]
    lines = ["## 2,000 images, batch 64\n", "| | top-1, mean (by seed) |", "| --- | --- |"]
    lines += [f"| {title} | {_told(_mean(values, prefix, seeds, field))} |" for title, prefix, field in rows]
    probe = values.get("probe fashion-2000-batch64-seed0")
    if probe:
        lines.append(f"| linear probe of the frozen teacher, seed 0 | {probe['top1']:.1f} |")
    lines.append("")
    plain = _mean(values, "plain-student", seeds, "seconds")
    ours = _mean(values, "random", seeds, "labels_seconds")
    taught = _mean(values, "random", seeds, "distill_seconds")
    if plain and len(plain) == len(ours):
        ratio = mean(own / other for own, other in zip(ours, plain, strict=True))
        with_teacher = mean(own / other for own, other in zip(taught, plain, strict=True))
        lines.append(
            f"Training time of the student against the plain loop's, in the same run: {ratio:.2f} with the labels "
            f"alone, {with_teacher:.2f} with the teacher beside it.\n"
        )
    return "\n".join(lines)


def _cells(values: dict[str, Any], cells: Sequence[Cell]) -> str:
    """Other images and batch sizes, seed 0."""
    lines = [
        "## Other images, other batches (seed 0)\n",
        "| images | batch | steps | teacher plain / ours | student plain | ours, labels | with teacher | defaults |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        teacher = cell.key.replace(f"batch{cell.batch}", "batch64")
        plain, random = values.get(f"plain-student {cell.key}"), values.get(f"random {cell.key}")
        if plain is None or random is None:
            continue
        default = values.get(f"default {cell.key}")
        teachers = f"{values[f'plain-teacher {teacher}']['top1']:.1f} / {values[f'teacher {teacher}']['top1']:.1f}"
        last = f"{default['with_teacher']:.1f}" if default else "not measured"
        lines.append(
            f"| {cell.name} | {cell.batch} | {plain['steps']} | {teachers} | {plain['top1']:.1f} | "
            f"{random['labels']:.1f} | {random['with_teacher']:.1f} | {last} |"
        )
    return "\n".join([*lines, ""])


def _control(values: dict[str, Any]) -> str:
    """What the teacher was worth, and the gate."""
    lines = ["## What the teacher was worth (`--control labels`)\n"]
    lines += ["| run | first weights | points over labels alone | 95 % interval |", "| --- | --- | --- | --- |"]
    for key, value in values.items():
        kind, _, cell = key.partition(" ")
        if kind in ("random", "default"):
            gain, low, high = value["gain"]
            lines.append(f"| {cell} | {value['source']} | {gain:+.1f} | [{low:.1f}, {high:.1f}] |")
    if "control" in values:
        lines.append("\n`gates.min_teacher_gain`, a limit below and a limit above what was measured:\n")
        lines += [f"- {one['limit']:.1f}: exit code {one['exit_code']}; {one['line']}" for one in values["control"]]
    return "\n".join([*lines, ""])


def _shares(values: dict[str, Any]) -> str:
    """Shares of the loss."""
    lines = ["## Shares of the loss, first and last epoch\n"]
    for key, value in values.items():
        if key.startswith(("random fashion-2000-batch64-seed0", "default fashion-2000-batch64-seed0")):
            told = {
                when: ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
                for when, shares in value["shares"].items()
            }
            lines.append(f"- {key}: {told['first']}; last {told['last']}")
    return "\n".join([*lines, ""]) if len(lines) > 1 else ""


def _advice(values: dict[str, Any]) -> str:
    if "advice" not in values:
        return ""
    return "\n".join(["## The advisor on the real teacher\n", "```", *values["advice"], "```", ""])
