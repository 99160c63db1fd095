"""Other tasks and networks on real images: a CNN pair, images without labels, several labels an image, embeddings.

Each is one `compress run`, with a gate that is met; the same command with a limit that is not met follows.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from real_before import compress, report_of
from real_data import CLASSES_OF_DRAWINGS, NAMES, cnn_weights, drawings, fashion

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = 1000
SEEN = NAMES[:7]
"""Classes whose images the embedding is trained on; the other three are searched."""
QUICK = {"verify.latency_seconds": 5, "verify.throughput_batches": [], "verify.memory": False, "analysis.images": 0}
VIT = {"teacher": "vit_small_patch14_dinov2", "student": "deit_tiny", "strategy": "lift", "image_size": 64}


def measured(name: str, work: Path, images: Path, vit: Path) -> dict[str, Any]:
    """The result of one of ``KINDS``; ``vit`` are the ViT-S/14's weights."""
    return KINDS[name](work.resolve() / f"tasks-{name}", images.resolve(), vit.resolve())


def _cnn(run: Path, images: Path, vit: Path) -> dict[str, Any]:
    found = {}
    for strategy in ("plain", "lift"):
        given = {"teacher": "tf_efficientnet_lite0", "student": "mobilenetv4_conv_small", "image_size": 96}
        sets = {"distill.epochs": 8, "teacher.tune_epochs": 4, "distill.batch_size": 32, "teacher.batch_size": 32}
        asked = given | {"teacher_weights": cnn_weights(images), "data": drawings(images)}
        asked |= {"control": "labels"} if strategy == "lift" else {}
        folder = run.with_name(f"{run.name}-{strategy}")
        found[strategy] = _run(folder, asked | {"strategy": strategy}, sets, "max_accuracy_drop", (40, -40))
    return found


def _unlabelled(run: Path, images: Path, vit: Path) -> dict[str, Any]:
    labelled, more = fashion(images, 500, HELD_OUT), _flat(images, 500, 6000)
    sets = {"distill.epochs": 3, "teacher.tune_epochs": 2, "distill.batch_size": 64, "teacher.batch_size": 64}
    both, alone = run.with_name(f"{run.name}-both"), run.with_name(f"{run.name}-alone")
    given = VIT | {"data": labelled, "teacher_weights": vit}
    limits = ("min_teacher_agreement", (50, 99.9))
    found = {"labelled": _run(alone, given, sets | {"distill.epochs": 36}, *limits)}
    found["both"] = _run(both, given, sets | {"data.unlabelled": str(more)}, *limits)
    names = images / "fashion-names.txt"
    names.write_text("".join(f"{name}\n" for name in sorted(NAMES)))
    none = sets | {"data.labelled": False, "data.labels": str(names)}
    none = {key: value for key, value in none.items() if not key.startswith("teacher.")}
    given = VIT | {"data": more, "teacher_weights": both / "teacher" / "model.safetensors"}
    found["none"] = _run(run, given, none, *limits)
    return found


def _multilabel(run: Path, images: Path, vit: Path) -> dict[str, Any]:
    sets = {"distill.epochs": 4, "teacher.tune_epochs": 2, "distill.batch_size": 64, "teacher.batch_size": 64}
    given = VIT | {"data": _pairs(images), "teacher_weights": vit, "task": "multilabel", "control": "labels"}
    return {"pairs": _run(run, given, sets, "min_micro_f1", (30, 99.9))}


def _embedding(run: Path, images: Path, vit: Path) -> dict[str, Any]:
    given = VIT | {"data": _by_class(images), "teacher_weights": vit, "task": "embedding"}
    sets = {"distill.epochs": 4, "distill.batch_size": 64}
    return {"held-out classes": _run(run, given, sets, "max_accuracy_drop", (30, -30))}


KINDS: dict[str, Callable[[Path, Path, Path], dict[str, Any]]] = {
    "cnn": _cnn,
    "unlabelled": _unlabelled,
    "multilabel": _multilabel,
    "embedding": _embedding,
}


def _run(
    folder: Path, given: dict[str, Any], sets: dict[str, Any], gate: str, limits: Sequence[float]
) -> dict[str, Any]:
    """One run, with a limit that is met and one that is not: its exit codes and what its report says."""
    words = ["run", "--target", "onnx", "--output", str(folder)]
    words += [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += [word for name, value in (QUICK | sets).items() for word in ("--set", f"{name}={_yaml(value)}")]
    ended = []
    for limit in limits:
        done = compress(ROOT, *words, "--set", f"gates.{gate}={limit}")
        if done.returncode not in (0, 1):
            raise SystemExit(f"compress {' '.join(words)} ended with {done.returncode}: {done.stderr[-800:]}")
        (row, *_) = (one for one in report_of(folder)["gates"] if one["gate"] == gate)
        ended.append({"limit": limit, "exit_code": done.returncode, "verdict": row["verdict"], "value": row["value"]})
    report = report_of(folder)
    head, distilled = report["headline"], report["training"]["distill"]
    deployed = [row for row in report["metrics"] if row["runtime"] == "onnx" and row["precision"] == "fp32"]
    return {
        "command": f"compress {' '.join(words)}".replace(f"{folder.parent}/", ""),
        "teacher": head["teacher_top1"]["value"],
        "student": head["student_top1"]["value"],
        "drop": [head["drop"][end] for end in ("value", "low", "high")],
        "speedup": head["speedup"]["value"],
        "parameters": head["parameters"],
        "seconds": distilled["seconds"],
        "control": report["training"]["control"],
        "metrics": {
            f"{row['model']}: {row['label']}": row["value"]
            for row in deployed
            if row["value"] is not None and row["model"] != "lift-kept"
        },
        "gates": ended,
        "gate": gate,
    }


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flat(images: Path, first: int, last: int) -> Path:
    """A folder of Fashion-MNIST's images ``first`` to ``last`` without classes."""
    made = images / f"fashion-flat-{first}-{last}"
    if not made.is_dir():
        whole = fashion(images, last, HELD_OUT)
        made.mkdir()
        for path in sorted((whole / "train").rglob("*.png")):
            if int(path.stem) >= first:
                (made / path.name).symlink_to(path.resolve())
    return made


def _pairs(images: Path) -> Path:
    """A manifest of pictures of two products side by side, each with the classes of both."""
    made = images / "fashion-pairs"
    if not (made / "pairs.csv").is_file():
        whole, rng = fashion(images, 4000, HELD_OUT), np.random.default_rng(0)
        rows = []
        for split in ("train", "val"):
            (made / split).mkdir(parents=True, exist_ok=True)
            paths = sorted((whole / split).rglob("*.png"))
            order = rng.permutation(len(paths))
            for index, (one, other) in enumerate(zip(order[::2], order[1::2], strict=False)):
                pair = [np.asarray(Image.open(paths[at])) for at in (one, other)]
                Image.fromarray(np.pad(np.hstack(pair), ((14, 14), (0, 0)))).save(made / split / f"{index:05d}.png")
                labels = sorted({paths[one].parent.name, paths[other].parent.name})
                rows.append((f"{split}/{index:05d}.png", "|".join(labels), split))
        with (made / "pairs.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "labels", "split"), *rows])
    return made / "pairs.csv"


def _by_class(images: Path) -> Path:
    """Class folders: 2,800 images of ``SEEN`` to train on, all held-out images of the other classes."""
    made = images / "fashion-classes"
    if not made.is_dir():
        whole = fashion(images, 4000, 4000)
        for split, names in (("train", SEEN), ("val", NAMES[len(SEEN) :])):
            (made / split).mkdir(parents=True)
            for name in names:
                (made / split / name).symlink_to((whole / split / name).resolve())
    return made


def page(found: dict[str, Any]) -> str:
    """The section of docs/real-tasks.md for each kind that was measured."""
    return "\n".join(_section(name, found[f"task {name}"]["value"]) for name in KINDS if f"task {name}" in found)


TITLES = {
    "cnn": f"A CNN pair: EfficientNet-Lite0 (ImageNet) to MobileNetV4-small, {CLASSES_OF_DRAWINGS} classes of drawings",
    "unlabelled": "Images without labels: ViT-S/14 to DeiT-Tiny, 500 labelled and 5,500 others of Fashion-MNIST, 64 px",
    "multilabel": "Several labels an image: ViT-S/14 to DeiT-Tiny, pairs of Fashion-MNIST, 64 px",
    "embedding": "Embeddings: ViT-S/14's tower to DeiT-Tiny, searched among classes that training never saw, 64 px",
}


def _told(top: float | None) -> str:
    """A number, or a dash where the teacher is what is agreed with."""
    return "-" if top is None else f"{top:.1f}"


def _section(name: str, runs: dict[str, Any]) -> str:
    lines = [f"## {TITLES[name]}\n", "| | teacher | student | drop [95 %] | labels alone | parameters | speed-up | s |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for key, run in runs.items():
        drop, low, high = run["drop"]
        alone = run["control"] and f"{run['control']['val_top1']:.1f}"
        cost = run["parameters"]
        lines.append(
            f"| {key} | {_told(run['teacher'])} | {run['student']:.1f} | {drop:.1f} [{low:.1f}, {high:.1f}] | "
            f"{alone or '-'} | {cost['teacher'] / 1e6:.1f} M to {cost['student'] / 1e6:.1f} M | "
            f"{run['speedup']:.1f}x | {run['seconds']:.0f} |"
        )
    for key, run in runs.items():
        metrics = "; ".join(f"{label} {value:.1f}" for label, value in run["metrics"].items())
        gates = ", ".join(f"{one['limit']:g}: {one['verdict']}, exit {one['exit_code']}" for one in run["gates"])
        lines += ["", f"**{key}**: {metrics}. `{run['gate']}` {gates}.", "", f"    {run['command']}"]
    return "\n".join([*lines, ""])
