"""What reduced precisions of an ONNX graph cost and give: size, seconds, differences from fp32, latency, engines.

    python benchmarks/precision.py --json benchmarks/results/precision.json

Three tiny networks trained on the digits (differences mean something only where logits do), and DeiT-Tiny at full
size with random weights (sizes and latency), each rewritten as a run deploys it. Latency is that of ONNX Runtime, and
of OpenVINO (".xml"), on one thread, interleaved in one process with fp32 twice, whose ratio to itself shows the noise.
It is processor time: that of a busy machine too. bf16 and fp8 are left out where NVIDIA ModelOpt is not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export import SPEC

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import CompressError, EnvironmentLacksError
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.precision.compare import Limits
from vitcompress.exporters.precision.reduce import reduced_from_onnx
from vitcompress.exporters.runners import OnnxRunner, Runner
from vitcompress.exporters.runners.openvino import OpenvinoRunner, import_openvino
from vitcompress.exporters.tensorrt import engine_from_onnx, installed_flavours
from vitcompress.stages.rewrites.deploy import deployed

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "DeiT": ("deit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "CaiT": ("cait_xxs24_224", {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "init_values": 0.1}),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"patch_size": 2, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4), "window_size": 4},
    ),
}
LIMITS = Limits(difference=0.5, agreement=0.5)
"""So loose that nothing is left in fp32: the figures are those of the precisions themselves."""


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits, shuffled, float32 ``[1797, 3, 32, 32]`` in [-1, 1], and their classes."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    large = data.images[order].astype(np.float32).repeat(4, axis=1).repeat(4, axis=2) / 8 - 1
    return np.ascontiguousarray(large[:, None].repeat(3, axis=1)), data.target[order]


def trained(name: str, shape: dict[str, Any], epochs: int) -> torch.nn.Module:
    """A network fitted to the first 1,400 digits."""
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=32, num_classes=10, **shape)
    images, classes = (torch.from_numpy(part[:1400]) for part in digits())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * 22)
    for _ in range(epochs):
        for index in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[index]), classes[index]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def reduced(source: Path, calibration: NDArray[Any], checked: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """Facts by precision, and the engine of each where tensorrt-rtx is installed."""
    rows: dict[str, dict[str, Any]] = {"fp32": {"bytes": source.stat().st_size}}
    for precision in ("fp16", "int8", "bf16", "fp8", "int4"):
        said: list[str] = []
        target = source.with_name(f"{precision}.onnx")
        try:
            facts = reduced_from_onnx(
                source, target, precision, calibration=calibration, checked=checked, limits=LIMITS, log=said.append
            )
        except CompressError as error:
            print(f"  {precision} left out: {error}")
            if not isinstance(error, EnvironmentLacksError):
                rows[precision] = {"reason": str(error)}
            continue
        made = {"nodes": facts.nodes, "bytes": facts.bytes, "seconds": facts.seconds, "audit": facts.audit}
        rows[precision] = {**facts.how.model_dump(mode="json"), **made, "said": said}
    if "tensorrt-rtx" in installed_flavours():
        for precision, row in ((one, row) for one, row in rows.items() if one != "int4" and "reason" not in row):
            row["engine"] = engine(source.with_name(f"{precision}.onnx"), precision)
    return rows


def engine(path: Path, precision: Precision) -> dict[str, Any]:
    """Seconds and bytes of a tensorrt-rtx engine, or why there is none."""
    try:
        facts = engine_from_onnx(
            path,
            path.with_suffix(".engine"),
            flavour="tensorrt-rtx",
            precision=precision,
            opt_batch=1,
            max_batch=8,
            compute_capabilities=("8.9", "12.0") if precision == "fp8" else (),  # fp8 came with Ada
            log_path=path.with_suffix(".log"),
        )
    except CompressError as error:
        return {"reason": str(error)}
    return {"seconds": facts.seconds, "bytes": path.with_suffix(".engine").stat().st_size}


def latency(folder: Path, images: NDArray[np.float32], rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of a batch, and the median of fp32's time over each one's, round by round."""
    files = {path.stem: path for path in sorted(folder.glob("*.onnx")) if path.stem != "bf16"}
    runners: dict[str, Runner] = {name: OnnxRunner(path, threads=1) for name, path in files.items()}
    runners["fp32 again"] = OnnxRunner(files["fp32"], threads=1)
    ov = import_openvino()
    for name in ("fp32", "fp16", "int8"):
        path = folder / f"{name}.xml"
        ov.save_model(ov.Core().read_model(str(files[name])), str(path), compress_to_fp16=name == "fp16")
        runners[path.name] = OpenvinoRunner(path, threads=1)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for index in range(rounds + 2):
        names = list(runners)
        for name in names[index % len(names) :] + names[: index % len(names)]:
            started = time.process_time()
            runners[name].infer(images)
            times[name].append(time.process_time() - started)
    steady = {name: np.array(values[2:]) for name, values in times.items()}
    return {
        name: {"ms": float(np.median(values)) * 1e3, "speedup": float(np.median(steady["fp32"] / values))}
        for name, values in steady.items()
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="one of the networks")
    options = parser.parse_args()
    images, _ = digits()
    large = np.ascontiguousarray(images[:64].repeat(7, axis=2).repeat(7, axis=3))
    results: dict[str, Any] = {}
    for name in (options.only,) if options.only else (*NETWORKS, "DeiT-Tiny 224"):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "fp32.onnx"
            full = name not in NETWORKS
            torch.manual_seed(0)
            model = timm.create_model("deit_tiny_patch16_224") if full else trained(*NETWORKS[name], options.epochs)
            spec = SPEC.model_copy(update={"size": 224 if full else 32})
            onnx_from_module(deployed(model, spec, "float").module, source, size=spec.size, max_batch=8)
            calibration, checked = (large[:32], large[32:]) if full else (images[:256], images[1400:])
            rows = reduced(source, calibration, checked)
            for batch in (1, 8):
                for precision, figures in latency(Path(folder), checked[:batch], options.rounds).items():
                    rows.setdefault(precision, {})[f"batch {batch}"] = figures
            results[name] = rows
            print(name)
            for precision, row in rows.items():
                keys = ("reason", "bytes", "seconds", "difference", "as_run", "agreement")
                shown = {key: row.get(key) for key in keys}
                print(" ", precision, shown, row.get("batch 1"), row.get("batch 8"), row.get("engine"), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
