"""Every kind of student in every precision: exported, checked in ONNX Runtime against torch, built to an engine.

    python benchmarks/export_matrix.py --json benchmarks/results/export-matrix.json     # the table of docs/export.md

Networks of full size at 224 pixels with a fitted classifier (``export_models.py``); the images that are compared were
not used to fit it. An engine is built by tensorrt-rtx where it is installed; without a GPU none is run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from export_models import NETWORKS, SPEC, digits, fitted
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.artifact_records import Precision
from core.errors import CompressError
from exporters.onnx import onnx_from_module
from exporters.precision.limits import default_limits
from exporters.precision.reduce import reduced_from_onnx
from exporters.runners import OnnxRunner
from exporters.tensorrt import engine_from_onnx, installed_flavours
from pipeline.machine import environment
from stages.rewrites.config import RewriteConfig
from stages.rewrites.deploy import deployed

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
EXAMPLES = 120
"""Digits that the classifier is fitted to, and int8 is calibrated on."""
COMPARED = 60
_MEGABYTE = 1e6
_BATCH = 8


@dataclass(frozen=True)
class Cell:
    """One network in one precision."""

    network: str
    precision: Precision
    megabytes: float
    nodes: int
    made_seconds: float
    """Of exporting it from torch (fp32), or of making it of the fp32 graph."""
    difference: float
    """Largest difference in logits from torch, as ONNX Runtime runs the file."""
    spread: float
    """Mean over images of torch's largest minus its smallest logit."""
    agreement: float
    """Share of images with torch's top-1."""
    kept_fp32: tuple[str, ...]
    engine_megabytes: float | None
    engine_seconds: float | None
    engine: str
    """What was built, or why nothing was."""

    @property
    def within(self) -> bool:
        """Whether the limits of the precision hold against torch; fp32: 1e-3 and every top-1."""
        if self.precision == "fp32":
            return self.difference <= 1e-3 and self.agreement == 1.0
        limits = default_limits(self.precision)
        return self.difference <= limits.difference * self.spread and self.agreement >= limits.agreement


class Row:
    """One network: fitted and exported once, then made in each precision."""

    def __init__(self, name: str, folder: Path, *, size: int = 224, examples: int = EXAMPLES) -> None:
        self.name, self.folder, self.size = name, folder, size
        self.spec = SPEC.model_copy(update={"size": size})
        self.calibration, _ = digits(examples, self.spec)
        self.images, _ = digits(COMPARED, self.spec, start=1000)
        module = fitted(name, examples, size)
        self.expected = _logits(module, self.images)
        self.path = folder / "model.onnx"
        rewritten = deployed(module, RewriteConfig(), self.spec, "float").module
        self.facts = onnx_from_module(rewritten, self.path, size=size, max_batch=_BATCH)

    def cell(self, precision: Precision, *, engine: bool = True) -> Cell:
        """Make the network in ``precision``, compare it, build its engine."""
        path, nodes, seconds, kept = self.path, self.facts.nodes, self.facts.seconds, ()
        if precision != "fp32":
            path = self.folder / f"model.{precision}.onnx"
            facts = reduced_from_onnx(
                self.path,
                path,
                precision,
                calibration=self.calibration,
                checked=self.images,
                limits=default_limits(precision),
            )
            nodes, seconds, kept = facts.nodes, facts.seconds, facts.kept_fp32
        with OnnxRunner(path) as runner:
            found = np.concatenate([runner.infer(part) for part in np.split(self.images, range(8, COMPARED, 8))])
        built = self._engine(path, precision) if engine else (None, None, "not asked for")
        return Cell(
            network=self.name,
            precision=precision,
            megabytes=path.stat().st_size / _MEGABYTE,
            nodes=nodes,
            made_seconds=seconds,
            difference=float(np.abs(found - self.expected).max()),
            spread=float(np.ptp(self.expected, axis=1).mean()),
            agreement=float((found.argmax(1) == self.expected.argmax(1)).mean()),
            kept_fp32=kept,
            engine_megabytes=built[0],
            engine_seconds=built[1],
            engine=built[2],
        )

    def _engine(self, path: Path, precision: Precision) -> tuple[float | None, float | None, str]:
        if "tensorrt-rtx" not in installed_flavours():
            return None, None, "tensorrt-rtx is not installed"
        try:
            facts = engine_from_onnx(
                path,
                path.with_suffix(".engine"),
                flavour="tensorrt-rtx",
                precision=precision,
                min_batch=1,
                opt_batch=_BATCH,
                max_batch=_BATCH,
                log_path=path.with_suffix(".log"),
            )
        except CompressError as error:
            return None, None, str(error)
        return facts.bytes / _MEGABYTE, facts.seconds, f"{facts.flavour} {facts.version}"


def _logits(module: nn.Module, images: NDArray[Any]) -> NDArray[np.float32]:
    with torch.inference_mode():
        parts = [module(part) for part in torch.split(torch.from_numpy(images), _BATCH)]
    logits: NDArray[np.float32] = torch.cat(parts).numpy()
    return logits


def table(cells: list[Cell]) -> str:
    """Markdown, a line a cell."""
    header = ["network", "precision", "ONNX", "nodes", "made in", "logits differ", "of their spread", "torch's top-1"]
    lines = [[*header, "left in fp32", "engine", "built in"]]
    lines.append(["---"] * len(lines[0]))
    for cell in cells:
        lines.append(
            [
                cell.network,
                cell.precision,
                f"{cell.megabytes:.1f} MB",
                str(cell.nodes),
                f"{cell.made_seconds:.1f} s",
                f"{cell.difference:.2g}",
                f"{cell.difference / cell.spread:.2g}",
                f"{cell.agreement:.1%}",
                ", ".join(cell.kept_fp32) or "-",
                cell.engine if cell.engine_megabytes is None else f"{cell.engine_megabytes:.1f} MB",
                "-" if cell.engine_seconds is None else f"{cell.engine_seconds:.1f} s",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@click.command(help=__doc__)
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these; repeatable.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write every figure there.")
def main(names: tuple[str, ...], target: Path | None) -> None:
    """Print the table; exit code 1 if a cell is beyond its limits."""
    cells: list[Cell] = []
    for name in names or NETWORKS:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            row = Row(name, Path(folder))
            cells += [row.cell(precision) for precision in PRECISIONS]
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(table(cells))
    beyond = [f"{cell.network} {cell.precision}" for cell in cells if not cell.within]
    print(f"\n{COMPARED} digits that the classifier was not fitted to; {environment()['processor']}.")
    if target:
        values = {"environment": environment(), "cells": [asdict(cell) for cell in cells]}
        target.write_text(json.dumps(values, indent=1) + "\n")
    if beyond:
        print(f"beyond the limits of its precision: {', '.join(beyond)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
