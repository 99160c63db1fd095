"""int8 made after training against int8-qat, on digits and Fashion-MNIST: `python benchmarks/qat.py --work FOLDER`.

Each cell is a run of its own, `compress run ... --precision fp32,int8,int8-qat`. Then its ONNX files are asked for
every held-out image, operator by operator, which is the same on every CPU. The weights that trained on are asked in
fp32 too, for some of the gain is that of more training. ``--ways`` trains the first seed's student
of each case in other ways too: longer, at other rates, with learned ranges of activations (LSQ, arXiv 1902.08153).
Results are kept in ``results/qat.json``, so that a benchmark that stops goes on, and are written into ``docs/qat.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from code_version import code_version
from marked import write_marked
from real_data import fashion
from rich.console import Console
from torch import nn
from torch.nn.utils import parametrize

from vitcompress.core.artifact_records import ExportRecord
from vitcompress.core.context import Context
from vitcompress.core.files import write_atomic
from vitcompress.core.records import DataRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.exporters.precision.compare import logits_of
from vitcompress.pipeline.config import validate
from vitcompress.pipeline.plan import BY_NAME, qat_of
from vitcompress.stages.distill.qat import fake, stage
from vitcompress.stages.images.held_out import held_out_batches
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.judging.accuracy import correct, paired_drop

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "qat.json", ROOT / "docs" / "qat.md"
GRAPHS = ("fp32", "int8", "trained on, fp32", "int8-qat")
PAIRS = (("int8", "fp32"), ("int8-qat", "int8"), ("trained on, fp32", "fp32"))
QUICK = (
    "analysis.images=0", "verify.latency_seconds=0.1", "verify.memory=false", "verify.throughput_batches=[]",
    "export.max_int8_drop=100", "gates.max_accuracy_drop=null", "gates.min_speedup=null", "gates.above_chance=false",
    "teacher.epochs=15", "distill.epochs=20",
)  # fmt: skip
SMALL = ("geometry=reduced", "image_size=32", "teacher.epochs=30", "distill.epochs=60", "data.augment.hflip=0")
CASES: dict[str, tuple[str, ...]] = {
    "digits, DeiT": ("--teacher", "cait_s24", "--student", "deit_tiny"),
    "fashion, DeiT": ("--teacher", "vit_small_patch16_224", "--student", "deit_tiny"),
    "fashion, MobileNetV3": (
        "--teacher", "vit_small_patch16_224", "--student", "mobilenetv3_small_050", "--strategy", "plain"
    ),
}  # fmt: skip
WAYS: dict[str, dict[str, float]] = {
    "2 epochs": {}, "1 epoch": {"epochs": 1}, "5 epochs": {"epochs": 5}, "rate x 0.03": {"lr_factor": 0.03},
    "rate x 0.3": {"lr_factor": 0.3}, "learned ranges": {},
}  # fmt: skip


def trained(name: str, seed: int, work: Path, images: Path) -> Path:
    """The finished run of a cell."""
    root, small = work / f"{name.replace(', ', '-')}-{seed}", name.startswith("fashion")
    data = ("--data", str(fashion(images, 4000, 1000))) if small else ()
    sets = [word for one in (*QUICK, *(SMALL if small else ())) for word in ("--set", one)]
    made = ("--target", "onnx", "--precision", "fp32,int8,int8-qat", "--seed", str(seed), "--output", str(root))
    words = [sys.executable, "-m", "vitcompress", "run", *CASES[name], *data, *made, *sets]
    subprocess.run(words, cwd=ROOT, check=True)
    return root


def measured(root: Path) -> dict[str, Any]:
    """Top-1 of each graph, percent, and the paired differences in points."""
    run = RunDirectory.existing(root)
    export, data = run.load_record("export", ExportRecord), run.load_record("data", DataRecord)
    batches = list(held_out_batches(recorded_images(data)[1].val, [export.preprocess], batch_size=64, workers=0))
    images = np.concatenate([batch.inputs[export.preprocess] for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    graphs = {"fp32": export.student[export.deployed], **export.reduced}
    files = {name: root / one.file.path for name, one in graphs.items()}
    if "int8-qat" in files:  # the weights that it rounds, as they were trained
        files["trained on, fp32"] = Path(str(files["int8-qat"]).replace(".int8-qat.onnx", ".onnx"))
    models = {name: onnx.load(path) for name, path in files.items()}
    right = {name: correct(logits_of(model, images, optimised=False), labels) for name, model in models.items()}
    pairs = [pair for pair in PAIRS if {*pair} <= right.keys()]
    return {
        "top1": {name: 100 * float(own.mean()) for name, own in right.items()},
        "gain": {one: paired_drop(right[one], right[other]) for one, other in pairs},
        "kept_fp32": {name: len(one.reduced.kept_fp32) for name, one in graphs.items() if one.reduced},
    }


def learned(network: nn.Module, ranges: dict[str, float]) -> None:
    """``fake_quantise`` with ranges that train; LSQ's scale of their gradients (section 2.2)."""
    for name, layer in [one for one in fake.quantised_layers(network) if one[0] in ranges]:
        parametrize.register_parametrization(layer, "weight", fake._RoundedWeight())
        layer.input_scale = nn.Parameter(torch.tensor([(ranges[name] or fake.LEVELS) / fake.LEVELS]))
        layer.register_forward_pre_hook(_learned_input)


def _learned_input(module: Any, given: tuple[torch.Tensor]) -> torch.Tensor:
    factor = (given[0][0].numel() * fake.LEVELS) ** -0.5
    quantise: Any = torch._fake_quantize_learnable_per_tensor_affine
    return quantise(given[0], module.input_scale, torch.zeros(1), -fake.LEVELS, fake.LEVELS, factor)


def in_another_way(root: Path, way: str) -> dict[str, Any]:
    """Score of the fake-quantised student of a run, percent, trained in one of ``WAYS``; the run stays as it is."""
    copy = RunDirectory.existing(shutil.copytree(root, root.with_name(f"{root.name}-way"), dirs_exist_ok=True))
    config = validate(copy.state()["resolved"])
    inputs = stage.Inputs(**{need: copy.load_record(need, BY_NAME[need].record) for need in BY_NAME["qat"].needs})
    job = qat_of(config.model_copy(update={"qat": config.qat.model_copy(update=WAYS[way])}))
    context = Context(
        copy, config.seed, "cpu", threads=int(config.threads), fingerprint=way, console=Console(quiet=True)
    )
    stage.fake_quantise = learned if way.startswith("learned") else fake.fake_quantise  # type: ignore[assignment]
    (score,) = stage.run(job, inputs, context).val_top1.values()
    return {"top1": {"int8-qat": score}, "gain": {}}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=Path, default=ROOT / "runs" / "real" / "images")
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}

    def once(key: str, measure: Callable[[], Any]) -> None:
        if key not in found:
            found[key] = {**measure(), "commit": code_version()}
            write_atomic(RESULTS, json.dumps(found, indent=1) + "\n")

    for name in (name for name in CASES if name.startswith(asked.only)):
        for seed in range(asked.seeds):
            once(f"{name}, seed {seed}", lambda: measured(trained(name, seed, asked.work, asked.images)))  # noqa: B023
        for way in WAYS if asked.ways else ():
            once(f"{name}, {way}", lambda: in_another_way(trained(name, 0, asked.work, asked.images), way))  # noqa: B023
    rows = [f"| student | {' | '.join([*GRAPHS, *map(' - '.join, PAIRS)])} |", "| --- " * 8 + "|"]
    for key, one in found.items():
        cells = ["{:.1f}".format(one["top1"][name]) if name in one["top1"] else "none" for name in GRAPHS]
        cells += ["{:+.2f} [{:.2f}, {:.2f}]".format(*one["gain"][name]) for name, _ in PAIRS if name in one["gain"]]
        rows.append(f"| {key} | {' | '.join([*cells, '-', '-', '-'][:7])} |")
    write_marked(PAGE, "benchmarks/qat.py", "\n".join(rows))


if __name__ == "__main__":
    main()
