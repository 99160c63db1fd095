"""Deployed students against timm's own export of them in one interleaved run: OpenVINO, ONNX Runtime, fp32, int8.

    python benchmarks/evidence/speed.py                 # measures this machine, then writes docs/evidence/speed.md
    python benchmarks/evidence/speed.py --page          # only the page, of all machines in the results

DeiT-Tiny at 224 pixels, 1,000 classes, a teacher of width 384, random weights. Another machine adds its own lines to
benchmarks/results/evidence/speed.jsonl; of one machine the latest run counts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_version import code_version
from export import AGREE, BOOTSTRAP, SPEC, STUDENT, TEACHER_WIDTH, student, timm_export
from gates_latency import append

from vitcompress.core.artifact_records import OnnxArtifact, Precision
from vitcompress.core.errors import CompressError
from vitcompress.core.files import reference
from vitcompress.core.machine import cpu_flags, processor
from vitcompress.core.rundir import utc_now
from vitcompress.exporters import targets
from vitcompress.exporters.latency import (
    Call,
    Measurement,
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
NETWORKS = ("plain", "lift", "widelast", "uniform")
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Targets, and the packages that run their files."""
INSTRUCTIONS = {
    "AVX2": ("avx2",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "AMX": ("amx_int8", "amx_tile"),
}
"""What a processor multiplies with, the best last, and the flags of Linux that tell of it."""
AGAIN = "again"
PLAIN = ("plain", "timm", "fp32")


@dataclass(frozen=True)
class File:
    """What a runtime opens."""

    network: str
    export: str
    """``timm``, ``ours``, or AGAIN: timm's plain file a second time."""
    precision: Precision
    runtime: str
    path: Path
    difference: float
    """Largest of a logit from torch's."""
    bytes: int

    @property
    def name(self) -> str:
        """As timed."""
        return f"{self.network}, {self.export}, {self.precision}, {self.runtime}"


def network_of(name: str, size: int, exporter: str) -> nn.Module:
    """Return a student; of a lift timm's export has the projector, as published, and ours is folded."""
    args: dict[str, Any] = {} if size == SPEC.size else {"img_size": size}
    if name == "uniform":
        wide = matching_width(STUDENT, args, CLASSES, TEACHER_WIDTH)
        return student("plain", STUDENT, widened_args(STUDENT, args, wide), CLASSES, TEACHER_WIDTH)
    graph = {"lift": "lift-kept" if exporter == "timm" else "lift-folded"}.get(name, name)
    return student(graph, STUDENT, args, CLASSES, TEACHER_WIDTH)


def files_of(name: str, exporter: str, images: NDArray[np.float32], folder: Path) -> Iterator[File | dict[str, Any]]:
    """Yield a network's files of one exporter for every runtime and precision; what cannot be made, with the reason."""
    size = images.shape[-1]
    model = network_of(name, size, exporter)
    fp32 = folder / f"{name}-{exporter}.onnx"
    if exporter == "timm":
        timm_export(model, fp32, size, dynamo=False)
    else:
        rewritten = deployed(model, SPEC.model_copy(update={"size": size}), "float").module
        onnx_from_module(rewritten, fp32, size=size, max_batch=8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    about_graph = {"cost": cost_of(model, size), "nodes": 0, "opset": 0, "seconds": 0.0}
    about_graph |= {"max_logit_difference": {}, "tolerance": AGREE}
    (folder / "export").mkdir(exist_ok=True)  # where targets put their files
    for precision in ("fp32", "int8"):
        for runtime in RUNTIMES:
            about = {"network": name, "export": exporter, "precision": precision, "runtime": runtime}
            try:
                path = fp32 if precision == "fp32" else _int8(fp32, exporter, images)
                if runtime != "onnx":
                    own = {"name": path.stem, "file": reference(path, folder), "precision": precision}
                    graph = OnnxArtifact.model_validate(about_graph | own)
                    path = folder / targets.get(runtime).build(graph, BuildOptions(folder)).files[0].path
                with targets.get(runtime).open(path, physical_cores()) as runner:
                    difference = float(np.abs(runner.infer(images) - expected).max())
            except CompressError as error:
                yield {**about, "reason": " ".join(str(error).split())}
                continue
            if precision == "fp32" and not difference <= AGREE:
                raise SystemExit(f"{about} differs from torch by {difference:.2g} in logits; no times are told.")
            parts = {path, path.with_suffix(".bin")} if runtime == "openvino" else {path}
            size_of = sum(one.stat().st_size for one in parts)
            yield File(**about, path=path, difference=difference, bytes=size_of)  # type: ignore[arg-type]


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


@contextmanager
def opened(file: File, images: NDArray[np.float32]) -> Iterator[Call]:
    """Open a file anew."""
    with targets.get(file.runtime).open(file.path, physical_cores()) as runner:
        yield partial(runner.infer, images)


def rows_of(files: Sequence[File], found: Measurement) -> Iterator[dict[str, Any]]:
    """Yield milliseconds of each file, and its speed over timm's fp32 export: of the same network, and of plain."""
    for file in files:
        bases = {"own": (file.network, *PLAIN[1:]), "plain": PLAIN}
        base = {key: f"{', '.join(names)}, {file.runtime}" for key, names in bases.items()}
        medians = found.medians[file.name]
        yield {
            **{key: getattr(file, key) for key in ("network", "export", "precision", "runtime", "difference", "bytes")},
            "ms": median_interval(found.samples(file.name), medians, BOOTSTRAP, 0),
            **{key: speedup_interval(found.medians[name], medians, BOOTSTRAP, 0) for key, name in base.items()},
        }


def measure(results: Path, networks: Sequence[str], size: int, batch: int, minutes: float) -> None:
    """Export everything, time it in turn, append a line for each file."""
    images = np.random.default_rng(0).standard_normal((16, 3, size, size), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder, pinned(physical_cores()):
        torch.set_num_threads(physical_cores())
        made = [
            one
            for name in networks
            for exporter in ("timm", "ours")
            for one in files_of(name, exporter, images, Path(folder))
        ]
        files = [one for one in made if isinstance(one, File)]
        files += [replace(one, export=AGAIN) for one in files if (one.network, one.export, one.precision) == PLAIN]
        given = np.ascontiguousarray(images[:batch])
        load = os.getloadavg()[0]
        found = measure_sessions({one.name: partial(opened, one, given) for one in files}, 60 * minutes)
    about = {
        "machine": machine_here(),
        "versions": {name: package_version(name) for name in RUNTIMES.values()} | environment()["packages"],
        "threads": physical_cores(),
        **{"size": size, "batch": batch, "minutes": minutes, "sessions": len(found.sessions)},
        **{"load": [load, os.getloadavg()[0]], "settled": found.settled, "date": utc_now(), "commit": code_version()},
    }
    for row in (*rows_of(files, found), *(one for one in made if not isinstance(one, File))):
        append(results, json.loads(json.dumps(about | row), parse_float=lambda text: float(f"{float(text):.5g}")))


def machine_here() -> dict[str, Any]:
    """Return what a run is known by: the processor, its cores, and the instructions that it says it has."""
    flags = cpu_flags()
    has = [name for name, any_of in INSTRUCTIONS.items() if flags & set(any_of)]
    return {"processor": processor(), "cores": physical_cores(), "instructions": has}


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


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Return the whole page."""
    latest: dict[str, str] = {}
    for row in rows:
        latest[_key(row)] = max(latest.get(_key(row), ""), row["date"])
    runs = [[row for row in rows if (_key(row), row["date"]) == one] for one in latest.items()]
    parts = [HEAD, *(section(run) for run in runs)] if runs else [HEAD, "**Nothing has been measured yet.**\n"]
    names = sorted({row["machine"]["processor"] for row in rows}) or ["any machine"]
    lines = [
        f"- {name}: " + (f"measured on {'; '.join(sorted(have))}." if have else f"not measured on {', '.join(names)}.")
        for name in INSTRUCTIONS
        for have in [{row["machine"]["processor"] for row in rows if name in row["machine"]["instructions"]}]
    ]
    parts.append(
        "\n".join(["## Instructions", "", *lines, "- GPU: not measured here; see [gpu.md](../gpu.md)."]) + "\n"
    )
    return "\n".join(parts)


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row["machine"], row["size"], row["batch"]])


def section(run: Sequence[dict[str, Any]]) -> str:
    """Return one run as a section."""
    first, form = run[0], "{:.3f} [{:.3f}, {:.3f}]"
    machine = first["machine"]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in (*RUNTIMES.values(), "torch", "timm"))
    lines = [
        f"## {machine['processor']}, {first['size']} pixels, batch {first['batch']}",
        "",
        f"{machine['cores']} cores, {first['threads']} threads, {', '.join(machine['instructions'])}; {versions}; "
        f"{first['sessions']} sessions in {first['minutes']:g} minutes; load average {first['load'][0]:.1f} before and "
        f"{first['load'][1]:.1f} after; commit {first['commit']}, {first['date']}.",
        "",
        "| runtime | network | export | precision | ms | over timm's fp32 of it | over timm's fp32 of plain | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(run, key=lambda row: (row["runtime"], NETWORKS.index(row["network"]), row["precision"])):
        cells = [row["runtime"], row["network"], row["export"], row["precision"]]
        if "reason" in row:
            cells += [f"not made: {row['reason'][:160].replace('|', '/')}", "", "", ""]
        else:
            ms = "{:.2f} [{:.2f}, {:.2f}]".format(*row["ms"])
            cells += [ms, form.format(*row["own"]), form.format(*row["plain"]), f"{row['bytes'] / 1e6:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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
        measure(results, NETWORKS, size, batch, minutes)
    lines = results.read_text().splitlines() if results.is_file() else []
    output.write_text(page([json.loads(line) for line in lines]))
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
