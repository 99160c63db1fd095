"""Every kind of student in every precision: exported, checked in ONNX Runtime against torch, built to an engine.

    python benchmarks/export_matrix.py --json benchmarks/results/export-matrix.json     # docs/export-matrix.md

Each at full size, 224 pixels, with random weights, and at the reduced geometry, trained on the digits: only of these
the top-1 says something (``export_models.py``). Compared on digits that nothing was trained or calibrated on. An engine
is built by tensorrt-rtx where it is installed; without a GPU none is run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
from export_models import HELD_OUT, NETWORKS, Geometry, digits, network, spec_of
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.artifact_records import EngineTrace, Precision
from vitcompress.core.errors import CompressError
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.precision.compare import LIMITS, Limits
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.tensorrt import engine_from_onnx, installed_flavours
from vitcompress.pipeline.machine import environment
from vitcompress.stages.rewrites.deploy import deployed

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
CALIBRATED = 96
COMPARED: dict[Geometry, int] = {"full": 32, "reduced": HELD_OUT}
_MEGABYTE = 1e6
_BATCH = 8


@dataclass(frozen=True)
class Cell:
    """One network in one precision."""

    network: str
    geometry: Geometry
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
    """Share of images with torch's top-1; of random weights it says nothing."""
    kept_fp32: tuple[str, ...]
    engine_megabytes: float | None
    engine_seconds: float | None
    engine: str
    """What was built, or why nothing was."""
    products: str
    """Matrix products of the graph by what they compute in in the engine, and those that the graph asks otherwise."""

    @property
    def within(self) -> bool:
        """Whether the limits of the precision hold against torch; fp32: 1e-3 and every top-1."""
        if self.precision == "fp32":
            return self.difference <= 1e-3 and (self.agreement == 1.0 or self.geometry == "full")
        limits = LIMITS[self.precision]
        agrees = self.agreement >= limits.agreement or self.geometry == "full"
        return self.difference <= limits.difference * self.spread and agrees


class Row:
    """One network: made and exported once, then made in each precision."""

    def __init__(self, name: str, geometry: Geometry, folder: Path) -> None:
        self.name, self.geometry, self.folder = name, geometry, folder
        spec = spec_of(geometry)
        self.calibration, _ = digits(slice(CALIBRATED), spec)
        self.images, _ = digits(slice(-COMPARED[geometry], None), spec)
        module = network(name, geometry)
        self.expected = _logits(module, self.images)
        self.path = folder / "model.onnx"
        rewritten = deployed(module, spec, "float").module
        self.facts = onnx_from_module(rewritten, self.path, size=spec.size, max_batch=_BATCH)

    def cell(self, precision: Precision, *, engine: bool = True) -> Cell:
        """Make the network in ``precision``, compare it, build its engine."""
        path, nodes, seconds = self.path, self.facts.nodes, self.facts.seconds
        kept: tuple[str, ...] = ()
        if precision != "fp32":
            path = self.folder / f"model.{precision}.onnx"
            facts = reduced_from_onnx(
                self.path,
                path,
                precision,
                calibration=self.calibration,
                checked=self.images,
                limits=self._limits(precision),
            )
            nodes, seconds, kept = facts.nodes, facts.seconds, facts.how.kept_fp32
        with OnnxRunner(path) as runner:
            found = np.concatenate(
                [runner.infer(part) for part in np.split(self.images, range(_BATCH, len(self.images), _BATCH))]
            )
        built = self._engine(path, precision) if engine else (None, None, "not asked for", "-")
        return Cell(
            network=self.name,
            geometry=self.geometry,
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
            products=built[3],
        )

    def _limits(self, precision: Precision) -> Limits:
        limits = LIMITS[precision]
        return replace(limits, agreement=0.0) if self.geometry == "full" else limits

    def _engine(self, path: Path, precision: Precision) -> tuple[float | None, float | None, str, str]:
        if "tensorrt-rtx" not in installed_flavours():
            return None, None, "tensorrt-rtx is not installed", "-"
        try:
            facts = engine_from_onnx(
                path,
                path.with_suffix(".engine"),
                flavour="tensorrt-rtx",
                precision=precision,
                opt_batch=_BATCH,
                max_batch=_BATCH,
                log_path=path.with_suffix(".log"),
            )
        except CompressError as error:
            return None, None, str(error), "-"
        size = path.with_suffix(".engine").stat().st_size / _MEGABYTE
        return size, facts.seconds, f"tensorrt-rtx {facts.version}", _products(facts.trace)


def _products(trace: EngineTrace | None) -> str:
    if trace is None:
        return "not told"
    found = ", ".join(f"{count} {precision}" for precision, count in trace.products.items())
    return f"{found} ({len(trace.otherwise)} otherwise than asked)" if trace.otherwise else found


def _logits(module: nn.Module, images: NDArray[Any]) -> NDArray[np.float32]:
    with torch.inference_mode():
        parts = [module(part) for part in torch.split(torch.from_numpy(images), _BATCH)]
    logits: NDArray[np.float32] = torch.cat(parts).numpy()
    return logits


def table(cells: list[Cell]) -> str:
    """Markdown, a line a cell."""
    header = ["network", "precision", "ONNX", "nodes", "made in", "logits differ", "of their spread", "torch's top-1"]
    lines = [[*header, "left in fp32", "engine", "built in", "products as built"]]
    lines.append(["---"] * len(lines[0]))
    for cell in cells:
        lines.append(
            [
                f"{cell.network}, {cell.geometry}",
                cell.precision,
                f"{cell.megabytes:.1f} MB",
                str(cell.nodes),
                f"{cell.made_seconds:.1f} s",
                f"{cell.difference:.2g}",
                f"{cell.difference / cell.spread:.2g}",
                f"{cell.agreement:.1%}" if cell.geometry == "reduced" else "-",
                ", ".join(cell.kept_fp32) or "-",
                cell.engine if cell.engine_megabytes is None else f"{cell.engine_megabytes:.1f} MB",
                "-" if cell.engine_seconds is None else f"{cell.engine_seconds:.1f} s",
                cell.products,
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@click.command(help=__doc__)
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these; repeatable.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write every figure there.")
def main(names: tuple[str, ...], target: Path | None) -> None:
    """Print the table; exit code 1 if a cell is beyond its limits."""
    cells: list[Cell] = []
    for geometry in get_args(Geometry):
        for name in names or NETWORKS:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                row = Row(name, geometry, Path(folder))
                cells += [row.cell(precision) for precision in PRECISIONS]
            print(f"{name}, {geometry}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(table(cells))
    beyond = [f"{cell.network} {cell.geometry} {cell.precision}" for cell in cells if not cell.within]
    print(f"\nCompared on {COMPARED['full']} digits (full) and {COMPARED['reduced']}; {environment()['processor']}.")
    if target:
        values = {"environment": environment(), "cells": [asdict(cell) for cell in cells]}
        target.write_text(json.dumps(values, indent=1) + "\n")
    if beyond:
        print(f"beyond the limits of its precision: {', '.join(beyond)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
