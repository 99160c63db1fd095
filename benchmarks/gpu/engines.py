"""Teacher and student as they would be deployed on this machine: latency at batch 1, 8 and 32, timed in turn.

    python benchmarks/gpu/engines.py --out engines.json [--small]

ONNX Runtime on the GPU where it knows one, else on the CPU, and engines of TensorRT and TensorRT-RTX where they are
installed and there is a GPU to run them. Engines also by trtexec's definitions, with their energy, at the smallest and
the largest batch (docs/gpu-timing.md). Weights are random: they do not change the time. `prove.py` starts it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpu.rows import Rows, device_here
from vitcompress.core.errors import CompressError
from vitcompress.exporters.latency import measure
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.precision.compare import LIMITS
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.runners.base import Runner
from vitcompress.exporters.runners.engine import EngineRunner
from vitcompress.exporters.runners.ort import OnnxRunner, provider_for
from vitcompress.exporters.tensorrt import engine_from_onnx, installed_flavours
from vitcompress.stages.models.build import input_size
from vitcompress.stages.models.names import resolve_architecture

BATCHES = (1, 8, 32)
FULL, SMALL = ("cait_s24", "deit_tiny"), ("test_vit2", "test_vit")
SECONDS = {"full": 4.0, "small": 0.5}
GPU_SECONDS = 1.5
"""For the parts of one engine at one batch size; energy takes a second at least."""


def exported(name: str, folder: Path) -> tuple[Path, int]:
    """A network as an fp32 graph, and its pixels."""
    model = timm.create_model(resolve_architecture(name), num_classes=1000)
    size = input_size({}, model)
    path = folder / f"{name}.onnx"
    onnx_from_module(model, path, size=size, max_batch=max(BATCHES))
    return path, size


def deployed(graphs: dict[str, Path], folder: Path, device: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runtime by runtime: its name, and by network what opens a runner, or the sentence why it cannot be had."""
    provider = provider_for(device)
    runtime = f"ONNX Runtime on {provider}, fp32"
    yield runtime, {name: lambda path=path: OnnxRunner(path, providers=provider) for name, path in graphs.items()}
    for flavour, version in installed_flavours().items():
        for precision in ("fp32", "fp16"):
            if device != "cuda":
                yield f"{flavour} {version}, {precision}", {"not here": "no GPU to run it"}
                continue
            found: dict[str, Any] = {}
            for name, path in graphs.items():
                engine = folder / f"{name}-{flavour}-{precision}.plan"
                try:
                    source = path if precision == "fp32" else halved(path)
                    engine_from_onnx(
                        source,
                        engine,
                        flavour=flavour,
                        opt_batch=8,
                        max_batch=max(BATCHES),
                        log_path=engine.with_suffix(".log"),
                        precision=precision,
                    )
                except CompressError as error:
                    found = {"not here": str(error)}
                    break
                found[name] = lambda engine=engine, flavour=flavour: EngineRunner(engine, flavour)
            yield f"{flavour} {version}, {precision}", found


def halved(path: Path) -> Path:
    """The graph in fp16, checked on random images."""
    target = path.with_name(f"{path.stem}-fp16.onnx")
    if not target.is_file():
        with OnnxRunner(path) as runner:
            images = np.random.default_rng(0).normal(size=(4, *runner.image_shape)).astype(np.float32)
        limits = LIMITS["fp16"]
        reduced_from_onnx(path, target, "fp16", calibration=images[:0], checked=images, limits=limits)
    return target


def timed(openers: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """Batch by batch: milliseconds of both networks, interleaved."""
    with ExitStack() as stack:
        runners: dict[str, Runner] = {name: stack.enter_context(opener()) for name, opener in openers.items()}
        for batch in BATCHES:
            inputs = {
                name: np.random.default_rng(0).normal(size=(batch, *runner.image_shape)).astype(np.float32)
                for name, runner in runners.items()
            }
            calls = {name: lambda name=name: runners[name].infer(inputs[name]) for name in runners}  # noqa: B023
            found = measure(calls, seconds)
            teacher, student = (np.median(found.milliseconds[name]) for name in runners)
            yield {
                "batch": batch,
                "teacher_milliseconds": float(teacher),
                "student_milliseconds": float(student),
                "faster": float(np.median(np.divide(*(found.milliseconds[name] for name in runners)))),
                "rounds": len(next(iter(found.milliseconds.values()))),
                "settled": found.settled,
                "on_gpu": {
                    name: runner.time(inputs[name], GPU_SECONDS).model_dump(mode="json")
                    for name, runner in runners.items()
                    if isinstance(runner, EngineRunner) and batch in (BATCHES[0], BATCHES[-1])
                },
            }


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--small", is_flag=True)
def main(out: Path, small: bool) -> None:
    """Measure runtime after runtime."""
    teacher, student = SMALL if small else FULL
    device = device_here()
    rows = Rows(out, {"teacher": teacher, "student": student, "device": device})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs = {model: exported(model, folder)[0] for model in (teacher, student)}
        for runtime, openers in deployed(graphs, folder, device):
            if "not here" in openers:
                rows.add({"runtime": runtime, "not_here": openers["not here"]})
                continue
            for row in timed(openers, SECONDS["small" if small else "full"]):
                rows.add({"runtime": runtime, **row})


if __name__ == "__main__":
    main()
