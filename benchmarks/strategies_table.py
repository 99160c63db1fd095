"""The numbers of `strategies.py` told: means over seeds, their intervals, and the page they are written on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from code_version import code_version
from scipy.stats import t as student_t

from vitcompress.core.errors import ResultError
from vitcompress.core.rundir import utc_now
from vitcompress.pipeline.machine import environment

REFERENCE = "soft"
"""Differences are against this method, where it is among those compared."""


@dataclass(frozen=True)
class Method:
    """One row of the table: what it changes in the config that all methods share."""

    name: str
    title: str
    settings: dict[str, Any]
    extra: bool = False
    """Only with --all."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its interval; one seed, or seeds that agree exactly, have none."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    def text(self, form: str = ".2f") -> str:
        """``98.05 [97.51, 98.59]``."""
        if self.low is None or self.high is None:
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean of ``values [S]`` and Student's t interval: mean +- t((1 + level) / 2, S - 1) s / sqrt(S), s with S - 1.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values to take a mean of.")
    count, mean = len(values), float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if count > 1 else 0.0
    if spread < 1e-9:
        return Estimate(mean, None, None, count)
    half = float(student_t.ppf((1 + level) / 2, count - 1)) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


def paired(values: dict[int, float], reference: dict[int, float], level: float = 0.95) -> Estimate:
    """Differences ``values - reference`` over the same seeds (seed -> points), as ``over_seeds`` has them.

    Raises:
        ValueError: the seeds are not the same.
    """
    if set(values) != set(reference):
        raise ValueError(f"the same seeds needed; got {sorted(values)} and {sorted(reference)}.")
    return over_seeds([values[seed] - reference[seed] for seed in sorted(values)], level)


def summary(methods: Sequence[Method], cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method, in their order.

    Raises:
        ResultError: the cells are not comparable: they differ in epochs, steps or, within a seed, in their teacher.
    """
    trained = {(cell["epochs"], cell["steps"]) for cell in cells}
    teachers = {(cell["seed"], cell["teacher_weights"]) for cell in cells}
    if len(trained) > 1 or len(teachers) > len({cell["seed"] for cell in cells}):
        raise ResultError(f"cells cannot be compared: (epochs, steps) {sorted(trained)}, {len(teachers)} teachers.")
    by_method = {method.name: [cell for cell in cells if cell["method"] == method.name] for method in methods}
    top1 = {name: {cell["seed"]: cell["top1"] for cell in own} for name, own in by_method.items()}
    compared = {method.name for method in methods} - {REFERENCE} if REFERENCE in top1 else set()

    def difference(name: str, level: float) -> dict[str, Any] | None:
        return vars(paired(top1[name], top1[REFERENCE], level)) if name in compared else None

    rows = []
    for method in methods:
        own = by_method[method.name]
        rows.append(
            {
                "method": method.name,
                "title": method.title,
                "settings": method.settings,
                "top1": vars(over_seeds(list(top1[method.name].values()))),
                "difference": difference(method.name, 0.95),
                "difference_bonferroni": difference(method.name, 1 - 0.05 / max(1, len(compared))),
                **{key: own[0][key] for key in ("graph", "parameters", "macs")},
                "seconds": [min(cell["seconds"] for cell in own), max(cell["seconds"] for cell in own)],
            }
        )
    return rows


# What is written.


def table(document: dict[str, Any]) -> str:
    """The Markdown table of a document of ``results.json``."""
    head = ["method", "top-1, % [95 %]", "minus soft KD, points [95 %]", "parameters", "MMACs", "training, s"]
    lines = [head, ["---"] * len(head)]
    for row in document["methods"]:
        difference = Estimate(**row["difference"]).text("+.2f") if row["difference"] else ""
        cells = [row["title"], Estimate(**row["top1"]).text(), difference, f"{row['parameters']:,}"]
        seconds = " to ".join(dict.fromkeys(f"{value:.0f}" for value in row["seconds"]))
        lines.append([*cells, f"{row['macs'] / 1e6:,.2f}", seconds])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def reading(document: dict[str, Any]) -> list[str]:
    """How the table is to be read: what its intervals cover and what they do not."""
    images, seeds = document["held_out_images"], len(document["seeds"])
    teachers = [teacher["top1"] for teacher in document["teachers"]]
    differences = [row for row in document["methods"] if row["difference"]]
    judged = "averaged (EMA) weights, always" if document["weights_judged"] == "ema" else "raw weights (no EMA is kept)"
    interval = (
        "Intervals: Student's t over the seeds; differences are paired, seed by seed. A seed changes weights, order, "
        "augmentation and a teacher that is trained here. It does not change the held-out images: what another choice "
        "of those would give is not covered."
        if seeds > 1
        else "One seed: no interval, and nothing to conclude."
    )
    lines = [
        f"{seeds} seed(s), {document['epochs']} epochs ({document['steps']:,} steps) each. One teacher a seed, shared "
        f"by all methods: {over_seeds(teachers).text()} % top-1.",
        f"Top-1 of the {judged}, on {images:,} held-out images: one image is {100 / images:.2f} points.",
        interval,
        "Parameters and MACs (of one image) are the deployed graph's, a lift's with its projector folded away. "
        f"Seconds: wall time of training a student, least to most over the seeds, {document['jobs']} at a time; "
        "they compare methods only where the machine did nothing else.",
    ]
    if seeds > 1 and len(differences) > 1:
        level = 100 * (1 - 0.05 / len(differences))
        left = [row["title"] for row in differences if _excludes_zero(row["difference_bonferroni"])]
        lines.insert(
            3,
            f"{len(differences)} differences are told, each at 95 %. For all to hold together at 95 %, each needs "
            f"{level:.4g} % (Bonferroni); of those wider intervals, these exclude zero: {', '.join(left) or 'none'}.",
        )
    return lines


def _excludes_zero(estimate: dict[str, Any]) -> bool:
    return estimate["low"] is not None and (estimate["low"] > 0 or estimate["high"] < 0)


def markdown(document: dict[str, Any]) -> str:
    """The whole result as a page: table, how to read it, every cell, machine and command."""
    machine = document["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    cells = "".join(
        f"| {cell['method']} | {cell['seed']} | {cell['top1']:.2f} | {cell['top1_raw']:.2f} | {cell['seconds']:.0f} |\n"
        for cell in document["cells"]
    )
    said = "".join(f"- {line}\n" for line in [*reading(document), *document["notes"]])
    return (
        f"# Strategies on {document['data']}\n\n{table(document)}\n{said}\n"
        f"    {document['command']}\n\n{document['at']}, {machine['processor']}, {machine['cores']} cores, "
        f"{'a GPU' if document['device'] == 'cuda' else 'CPU only'}; Python {machine['python']}, {versions}; "
        f"code {document['code']}.\n\n"
        f"## Every cell\n\n| method | seed | top-1 | top-1 of the raw weights | training, s |\n"
        f"| --- | --- | --- | --- | --- |\n{cells}"
    )


def document_of(methods: Sequence[Method], teachers: list[Any], cells: list[Any], command: str, jobs: int) -> Any:
    """Everything that ``results.json`` holds, from the teachers and the cells (``strategies_cell``)."""
    first = teachers[0]
    config = first.pop("config")
    shared = {key: first[key] for key in ("train_images", "held_out_images", "split", "notes")}
    own = [{key: value for key, value in each.items() if key not in (*shared, "config")} for each in teachers]
    return {
        "schema": 1,
        "at": utc_now(),
        "command": command,
        "code": code_version(),
        "environment": environment(),
        "data": config["data"]["source"],
        **shared,
        "device": config["device"],
        "jobs": jobs,
        "seeds": sorted({cell["seed"] for cell in cells}),
        **{key: cells[0][key] for key in ("epochs", "steps", "weights_judged")},
        "config": {**config, "seed": None},
        "methods": summary(methods, cells),
        "teachers": own,
        "cells": cells,
    }
