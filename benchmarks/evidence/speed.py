"""Deployed students against timm's own export of them in one interleaved run: OpenVINO, ONNX Runtime, fp32, int8.

    python benchmarks/evidence/speed.py                 # measures this machine, then writes docs/evidence/speed.md
    python benchmarks/evidence/speed.py --page          # only the page, of all machines in the results

DeiT-Tiny at 224 pixels, 1,000 classes, a teacher of width 384, random weights. Another machine adds its own lines to
benchmarks/results/evidence/speed.jsonl; of one machine the latest run counts.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_version import code_version
from export import AGREE, BOOTSTRAP, SPEC, STUDENT, TEACHER_WIDTH, student, timm_export
from gates_latency import append

from vitcompress.core.artifact_records import OnnxArtifact
from vitcompress.core.errors import CompressError
from vitcompress.core.files import reference
from vitcompress.core.machine import cpu_flags, processor
from vitcompress.core.rundir import utc_now
from vitcompress.exporters import targets
from vitcompress.exporters.latency import (
    measure_sessions,
    median_interval,
    physical_cores,
    pinned,
    speedup_interval,
)
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.precision.compare import LIMITS
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.targets import BuildOptions
from vitcompress.pipeline.machine import environment, package_version
from vitcompress.stages.models.build import cost_of
from vitcompress.stages.models.geometry import widened_args
from vitcompress.stages.models.uniform import matching_width
from vitcompress.stages.rewrites.deploy import deployed

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "evidence" / "speed.jsonl", ROOT / "docs" / "evidence" / "speed.md"
CLASSES = 1000
NETWORKS, RUNTIMES = ("plain", "lift", "widelast", "uniform"), ("onnx", "openvino")
INSTRUCTIONS = {"AVX2": {"avx2"}, "VNNI": {"avx512_vnni", "avx_vnni"}, "AMX": {"amx_int8"}}
"""What a processor multiplies with, the best last, and the flags of Linux that tell of it."""
COLUMNS = "runtime|network|export|precision|ms|over timm's fp32 of it|over timm's fp32 of plain|MB"
CELLS = "{runtime}|{network}|{export}|{precision}|{ms[0]:.2f} [{ms[1]:.2f}, {ms[2]:.2f}]|"
CELLS += "{own[0]:.3f} [{own[1]:.3f}, {own[2]:.3f}]|{plain[0]:.3f} [{plain[1]:.3f}, {plain[2]:.3f}]|{megabytes:.1f}"
ABOUT = """{cores} cores, {instructions}; {versions}; {sessions} sessions in {minutes:g} minutes; load average
{load[0]:.1f} before and {load[1]:.1f} after; commit {commit}, {date}.
"""
Row = dict[str, Any]


def network_of(name: str, size: int, exporter: str) -> nn.Module:
    """Return a student; of a lift timm's export has the projector, as published, and ours is folded."""
    args: dict[str, Any] = {} if size == SPEC.size else {"img_size": size}
    if name == "uniform":
        wide = matching_width(STUDENT, args, CLASSES, TEACHER_WIDTH)
        return student("plain", STUDENT, widened_args(STUDENT, args, wide), CLASSES, TEACHER_WIDTH)
    graph = {"lift": "lift-kept" if exporter == "timm" else "lift-folded"}.get(name, name)
    return student(graph, STUDENT, args, CLASSES, TEACHER_WIDTH)


def files_of(name: str, exporter: str, images: NDArray[np.float32], folder: Path) -> Iterator[Row]:
    """Yield a network by one exporter for every precision and runtime: its ``path``, or the ``reason`` for none."""
    size, fp32 = images.shape[-1], folder / f"{name}-{exporter}.onnx"
    model = network_of(name, size, exporter)
    if exporter == "timm":
        timm_export(model, fp32, size, dynamo=False)
    else:
        rewritten = deployed(model, SPEC.model_copy(update={"size": size}), "float").module
        onnx_from_module(rewritten, fp32, size=size, max_batch=8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    unknown = {"nodes": 0, "opset": 0, "seconds": 0.0, "max_logit_difference": {}, "tolerance": AGREE}
    for precision, runtime in itertools.product(("fp32", "int8"), RUNTIMES):
        row: Row = {"network": name, "export": exporter, "precision": precision, "runtime": runtime}
        try:
            path = fp32 if precision == "fp32" else _int8(fp32, exporter, images)
            known = {"name": path.stem, "file": reference(path, folder), "precision": precision}
            graph = OnnxArtifact.model_validate(unknown | known | {"cost": cost_of(model, size)})
            made: Any = targets.get(runtime).build(graph, BuildOptions(folder))
            row |= {"path": folder / made.file.path, "bytes": made.bytes}
            with opened(row, images) as call:
                row["difference"] = float(np.abs(call() - expected).max())
        except CompressError as error:
            row["reason"] = " ".join(str(error).split())
        if precision == "fp32" and not row.get("difference", 0.0) <= AGREE:
            raise SystemExit(f"{row} differs from torch by more than {AGREE:g} in logits; no times are told.")
        yield row


@contextmanager
def opened(row: Row, images: NDArray[np.float32]) -> Iterator[Callable[[], NDArray[np.float32]]]:
    """Open a file anew."""
    with targets.get(row["runtime"]).open(row["path"], physical_cores()) as runner:
        yield partial(runner.infer, images)


def _int8(fp32: Path, exporter: str, images: NDArray[np.float32]) -> Path:
    """Make it once: as the product does, whatever that costs in accuracy (the weights are random); of timm's export,
    which has no int8, by ONNX Runtime's own quantisation with its defaults.
    """
    path = fp32.with_suffix(".int8.onnx")
    if path.is_file():
        return path
    if exporter == "ours":
        limits = replace(LIMITS["int8"], difference=10.0, agreement=0.0)
        reduced_from_onnx(fp32, path, "int8", calibration=images, checked=images, limits=limits)
        return path
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = iter([{"images": image[None]} for image in images])

        def get_next(self) -> Any:
            return next(self.left, None)

    prepared = fp32.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(path), Reader())
    return path


def named(row: Row, **other: str) -> str:
    """Return what a file is called in a measurement."""
    return ", ".join((row | other)[key] for key in ("network", "export", "precision", "runtime"))


def measure(results: Path, size: int, batch: int, minutes: float) -> None:
    """Export everything, time it in turn, append a line for each file."""
    images = np.random.default_rng(0).standard_normal((16, 3, size, size), dtype=np.float32)
    given, timms = np.ascontiguousarray(images[:batch]), {"export": "timm", "precision": "fp32"}
    with tempfile.TemporaryDirectory() as folder, pinned(physical_cores()):
        torch.set_num_threads(physical_cores())
        (Path(folder) / "export").mkdir()  # where targets put their files
        wanted = itertools.product(NETWORKS, ("timm", "ours"))
        rows = [row for name, exporter in wanted for row in files_of(name, exporter, images, Path(folder))]
        plain = timms | {"network": "plain"}
        rows += [row | {"export": "again"} for row in rows if row | plain == row]
        load = os.getloadavg()[0]
        openers: Any = {named(row): partial(opened, row, given) for row in rows if "reason" not in row}
        found = measure_sessions(openers, 60 * minutes)
    about = {
        "machine": {"processor": processor(), "cores": physical_cores(), "instructions": instructions()},
        "versions": environment()["packages"] | {"openvino": package_version("openvino")},
        **{"size": size, "batch": batch, "minutes": minutes, "sessions": len(found.sessions)},
        **{"load": [load, os.getloadavg()[0]], "date": utc_now(), "commit": code_version()},
    }
    for row in rows:
        del row["path"]
        if named(row) in openers:
            times = found.medians[named(row)]
            row["ms"] = median_interval(found.samples(named(row)), times, BOOTSTRAP, 0)
            for key, base in (("own", timms), ("plain", plain)):
                row[key] = speedup_interval(found.medians[named(row, **base)], times, BOOTSTRAP, 0)
        append(results, json.loads(json.dumps(about | row), parse_float=lambda text: float(f"{float(text):.5g}")))


def instructions() -> list[str]:
    """Return which of INSTRUCTIONS this processor says it has."""
    return [name for name, any_of in INSTRUCTIONS.items() if cpu_flags() & any_of]


HEAD = """# Speed, measured

Students as this product deploys them against timm's own export of the same network (`timm.utils.onnx`, its default
exporter). DeiT-Tiny at 224 pixels, 1,000 classes, teacher of width 384, random weights: they decide no time. `plain` is
the student as it is; of `lift` timm's export keeps the projector, as published, and ours has it folded; of `widelast`
ours computes the last block for the class token alone, exactly; `uniform` has all blocks wider, with as many
parameters as widelast. timm has no int8: its fp32 export went through ONNX Runtime's `quantize_static` with its
defaults. One command measures and writes this page:

    python benchmarks/evidence/speed.py

All files of a machine are opened anew in each session and called in turn. Speed: the time of timm's fp32 export over
the file's, in the same runtime; above 1 the file is faster. Brackets are 95 % intervals over sessions. `again` is
timm's file of `plain` a second time: how far its interval is from 1 is what this machine cannot tell apart.
"""


def page(rows: Sequence[Row]) -> str:
    """Return the whole page: of every machine, size and batch its latest run."""
    runs: dict[str, list[Row]] = {}
    for row in rows:  # in order of time
        run = runs.setdefault(json.dumps([row["machine"], row["size"], row["batch"]]), [])
        if run and run[0]["date"] != row["date"]:
            run.clear()
        run.append(row)
    parts = [HEAD, *(map(section, runs.values()) if runs else ["**Nothing has been measured yet.**\n"])]
    machines = {row["machine"]["processor"]: row["machine"]["instructions"] for row in rows}
    parts.append("## Instructions\n\nOf a processor that has several of these, the last one counts.\n")
    for name in INSTRUCTIONS:
        have = " and ".join(machine for machine, has in machines.items() if has[-1:] == [name])
        parts.append(f"{name}: {'' if have else 'not '}measured on {have or ' or '.join(machines) or 'any machine'}.\n")
    return "\n".join([*parts, "GPU: not measured here; see [gpu.md](../gpu.md).\n"])


def section(run: Sequence[Row]) -> str:
    """Return one run as a section."""
    first, machine = run[0], run[0]["machine"]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("onnxruntime", "openvino", "torch", "timm"))
    told = {"cores": machine["cores"], "instructions": ", ".join(machine["instructions"]), "versions": versions}
    rows = [COLUMNS, "|".join("---" for _ in COLUMNS.split("|"))]
    for row in sorted(run, key=lambda one: (one["runtime"], NETWORKS.index(one["network"]), one["precision"])):
        why = "{runtime}|{network}|{export}|{precision}|not made: {reason:.160}|||"
        rows.append(why.format(**row) if "reason" in row else CELLS.format(**row, megabytes=row["bytes"] / 1e6))
    title = f"## {machine['processor']}, {first['size']} pixels, batch {first['batch']}\n\n"
    table = "".join(f"| {' | '.join(row.split('|'))} |\n" for row in rows)
    return title + ABOUT.format(**first | told) + "\n" + table


@click.command(help=__doc__)
@click.option("--page", "only_page", is_flag=True, help="Measure nothing.")
@click.option("--minutes", default=30.0, show_default=True, help="Of timing; exporting comes before.")
@click.option("--batch", default=1, show_default=True)
@click.option("--size", default=SPEC.size, show_default=True, help="Pixels; another one is for trying it out.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=PAGE, show_default=True)
def main(only_page: bool, minutes: float, batch: int, size: int, results: Path, output: Path) -> None:
    """Measure, and write the page."""
    if not only_page:
        results.parent.mkdir(parents=True, exist_ok=True)
        measure(results, size, batch, minutes)
    lines = results.read_text().splitlines() if results.is_file() else []
    output.write_text(page([json.loads(line) for line in lines]))
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
