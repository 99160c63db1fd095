"""Our export against timm's own, in ONNX Runtime: plain, widened and folded students, timed in one interleaved run.

    python benchmarks/export.py --json benchmarks/results/export.json
    python benchmarks/export.py --without            # also ours with no rewrite

Random weights, 224 pixels, 1,000 classes. timm's export is ``timm.utils.onnx.onnx_export`` of the same network with the
TorchScript exporter, the faster of its two here (``--dynamo`` adds the other). A ratio is printed only where logits
agree with torch's. The GEMM rate is that of one 1024 x 1024 x 1024 float32 MatMul in the same ONNX Runtime with the
same threads, timed in the same rounds; a network's rate is twice the multiply-accumulates of *its own* graph over its
time, so that leaving work out does not raise it. Ratios are of medians; beside them those of 10th percentiles, the
rounds that other work disturbed least, for machines that are not quiet ("timm" and "timm, again" tell).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.exporters.latency import (
    Call,
    Measurement,
    measure_sessions,
    median_interval,
    physical_cores,
    speedup_interval,
)
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.pipeline.machine import environment
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.models.students import LiftStudent
from vitcompress.stages.rewrites.deploy import deployed

STUDENT, TEACHER_WIDTH = "deit_tiny_patch16_224", 384
AGREE = 1e-3
"""Largest difference in logits between an export and torch for which its times are told."""
TARGETS = {"plain": 1.04, "widelast": 1.18, "lift-folded": 1.0}
"""Least speed-up asked of ours over timm's export (a folded lift: of the plain student)."""
GEMM = "GEMM 1024^3"
BOOTSTRAP = 2000
SPEC = PreprocessSpec(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def student(graph: str, arch: str, args: dict[str, Any], classes: int, width: int) -> nn.Module:
    """A student with random weights, none of them at a value that an exporter could leave out."""
    torch.manual_seed(0)
    kind: Any = "lift-kept" if graph == "lift-folded" else graph
    lift_width = None if graph == "plain" else width
    model = build_model(ModelSpec(arch=arch, args=args, num_classes=classes, graph=kind, lift_width=lift_width))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    if graph == "lift-folded":
        assert isinstance(model, LiftStudent)  # noqa: S101 - by its spec
        model = folded_from_lift(model)[0]
    return model.eval()


def timm_export(model: nn.Module, path: Path, size: int, dynamo: bool) -> None:
    """timm's own export; the exporters' warnings are theirs."""
    from timm.utils.onnx import onnx_export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx_export(
            deepcopy(model),
            str(path),
            batch_size=2,
            input_size=(3, size, size),
            use_dynamo=dynamo,
            opset=20 if dynamo else 17,
            input_names=["images"],
            output_names=["logits"],
        )


def gemm(threads: int) -> Callable[[], object]:
    """One MatMul 1024^3 in ONNX Runtime, weights constant, as in the networks."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    side = 1024
    a, b = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in ("a", "c")]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "gemm", values[:1], values[1:], [numpy_helper.from_array(b, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"a": a})


def exports(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Path], dict[str, int], dict[str, Any]]:
    """Files to time by name, the multiply-accumulates of each, and what torch answers."""
    files: dict[str, Path] = {}
    macs: dict[str, int] = {}
    models: dict[str, nn.Module] = {}
    size = arguments.size
    args = {} if size == SPEC.size else {"img_size": size}
    spec = SPEC.model_copy(update={"size": size})

    def add(name: str, original: nn.Module, module: nn.Module, write: Callable[[Path], object]) -> None:
        path = folder / f"{len(files)}.onnx"
        write(path)
        files[name], macs[name], models[name] = path, cost_of(module, size).macs, original
        print(f"exported {name}: {macs[name] / 1e9:.3f} GMAC", flush=True)

    variants = {"ours": True, "ours without any": False} if arguments.without else {"ours": True}
    for graph in arguments.graphs:
        model = student(graph, arguments.student, args, arguments.classes, arguments.width)
        for dynamo in (False, True) if arguments.dynamo else (False,):
            name = f"{graph}, timm" + (" (dynamo)" if dynamo else "")
            add(name, model, model, partial(timm_export, model, size=size, dynamo=dynamo))
        for words, rewrite in variants.items():
            done = deployed(model, spec, "float", rewrite=rewrite).module
            write = partial(onnx_from_module, done, size=size, max_batch=8)
            add(f"{graph}, {words}", model, done, lambda path, write=write: write(path))  # type: ignore[misc]
    first = next(iter(files))
    files[f"{first}, again"], macs[f"{first}, again"], models[f"{first}, again"] = (
        files[first],
        macs[first],
        models[first],
    )
    return files, macs, models


def differing(runner: OnnxRunner, model: nn.Module, images: NDArray[np.float32]) -> float:
    """Largest difference in logits from torch."""
    with torch.inference_mode():
        return float(np.abs(runner.infer(images) - model(torch.from_numpy(images)).numpy()).max())


def rows_of(found: Measurement, macs: dict[str, int], seed: int = 0) -> dict[str, dict[str, Any]]:
    """What the tables show of one batch size: milliseconds, rate, and the ratio to the baseline of each."""
    times = {name: found.samples(name) for name in found.medians}
    gemm_rate = 2 * 1024**3 / np.median(times[GEMM]) / 1e6
    gemm_rate_p10 = 2 * 1024**3 / np.percentile(times[GEMM], 10) / 1e6
    rows: dict[str, dict[str, Any]] = {}
    for name, samples in times.items():
        if name == GEMM:
            continue
        graph = name.partition(",")[0]
        own = f"{graph}, timm"
        baseline = "plain, timm" if graph == "lift-folded" and "plain, timm" in times else own
        rows[name] = {
            "ms": median_interval(samples, found.medians[name], BOOTSTRAP, seed),
            "ms_p10": float(np.percentile(samples, 10)),
            "ratio_p10": float(np.percentile(times[baseline], 10) / np.percentile(samples, 10)),
            "baseline": baseline,
            "ratio": speedup_interval(found.medians[baseline], found.medians[name], BOOTSTRAP, seed),
            "gflops": float(2 * macs[name] / np.median(samples) / 1e6),
            "of_gemm": float(2 * macs[name] / np.median(samples) / 1e6 / gemm_rate),
            "of_gemm_p10": float(2 * macs[name] / np.percentile(samples, 10) / 1e6 / gemm_rate_p10),
        }
    return rows


def table(batch: int, rows: dict[str, dict[str, Any]], macs: dict[str, int], rounds: int, gemm_ms: float) -> str:
    """One batch size in Markdown."""
    rate = 2 * 1024**3 / gemm_ms / 1e6
    head = f"Batch {batch}, {rounds} rounds; GEMM 1024^3 {rate:.0f} GFLOP/s (median).\n\n"
    columns = ["export", "GMAC", "ms [95 %]", "faster than", "by [95 %]", "by, of 10th percentiles", "GFLOP/s"]
    columns += ["of GEMM rate", "the same of 10th percentiles"]
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for name, row in rows.items():
        ms, ratio = row["ms"], row["ratio"]
        lines.append(
            f"| {name} | {macs[name] * batch / 1e9:.3f} | {ms[0]:.2f} [{ms[1]:.2f}, {ms[2]:.2f}] | {row['baseline']} | "
            f"{ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}] | {row['ratio_p10']:.3f} | "
            f"{row['gflops']:.0f} | {row['of_gemm']:.0%} | {row['of_gemm_p10']:.0%} |"
        )
    return head + "\n".join(lines)


def verdicts(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Each target, the figure, and whether it was reached."""
    lines = []
    for graph, target in TARGETS.items():
        row = rows.get(f"{graph}, ours")
        if row is not None:
            reached = "reached" if row["ratio"][0] >= target else "missed"
            lines.append(f"{graph}: {row['ratio'][0]:.3f} of {row['baseline']}, target {target:.2f}: {reached}")
            lines.append(f"{graph}: {row['of_gemm']:.0%} of the GEMM rate, target 80 %")
    return lines


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Export, check, time; what was found.

    Raises:
        SystemExit: an export answers differently from torch.
    """
    threads = arguments.threads or physical_cores()
    torch.set_num_threads(threads)
    files, macs, models = exports(arguments, folder)
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"threads": threads, "load_before": psutil.getloadavg(), "macs": macs, "batches": {}}
    images = rng.standard_normal((8, 3, arguments.size, arguments.size), dtype=np.float32)
    found["differences"] = {}
    for name, path in files.items():
        with OnnxRunner(path, threads=threads) as runner:
            difference = differing(runner, models[name], images)
        found["differences"][name] = difference
        if not difference <= AGREE:
            raise SystemExit(f"{name} differs from torch by {difference:.2g} in logits; no times are told.")

    @contextmanager
    def opened(path: Path, given: NDArray[np.float32]) -> Iterator[Call]:
        with OnnxRunner(path, threads=threads) as runner:
            yield partial(runner.infer, given)

    product = gemm(threads)
    for batch in arguments.batches:
        given = np.ascontiguousarray(images[:batch])
        openers: dict[str, Any] = {name: partial(opened, path, given) for name, path in files.items()}
        openers[GEMM] = partial(nullcontext, product)
        times = measure_sessions(openers, arguments.seconds)
        rows = rows_of(times, macs if batch == 1 else {name: value * batch for name, value in macs.items()})
        count, gemm_ms = len(times.samples(GEMM)), float(np.median(times.samples(GEMM)))
        print("\n" + table(batch, rows, macs, count, gemm_ms), *verdicts(rows), sep="\n", flush=True)
        found["batches"][str(batch)] = {"rounds": count, "gemm_ms": gemm_ms, "rows": rows}
    found["load_after"] = psutil.getloadavg()
    found["machine"] = environment()
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=list(TARGETS), choices=[*TARGETS, "lift-kept"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of a batch size")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--dynamo", action="store_true", help="also timm's dynamo export")
    parser.add_argument("--without", action="store_true", help="also ours with no rewrite")
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--width", type=int, default=TEACHER_WIDTH, help="of the teacher")
    parser.add_argument("--size", type=int, default=SPEC.size)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        found = run(arguments, Path(folder))
    machine = found["machine"]
    print(f"\n{machine['processor']}, {found['threads']} threads, load {found['load_before'][0]:.1f} before and "
          f"{found['load_after'][0]:.1f} after.")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
