"""One training of `run.py` and its line of results."""

from __future__ import annotations

import resource
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from arms import BATCH, IDEAS, STUDIES, needs_teacher, needs_width, settings_of
from code_version import code_version
from data import SETS
from ideas import applied
from real_cells import staged
from real_data import weights
from schedule import best_factor, epochs_of, passed

from vitcompress.core.bits import packed
from vitcompress.core.images import open_image
from vitcompress.core.machine import processor
from vitcompress.pipeline.config import load_layer, merge, validate, with_absolute_paths
from vitcompress.stages.images.loaders import eval_input
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own

if TYPE_CHECKING:
    from schedule import Cell, Line


def config_of(study: str, images: Path, *, teacher: dict[str, Any], seed: int = 0, **sets: Any) -> Any:
    """The recipe `folder` with what the plan says of all trainings, and these settings."""
    plan = STUDIES[study]
    data: dict[str, Any] = {"source": str(images), "augment": {"normalize_on": "device"}}
    if not plan.flip:
        data["augment"]["hflip"] = 0.0
    if plan.gpu:
        data["augment"]["backend"] = "torchvision"
    machine = {"device": "cuda", "workers": 16} if plan.gpu else {"device": "cpu", "threads": 1, "workers": 0}
    asked = {
        **machine, "seed": seed, "image_size": plan.size, "data": data, "teacher": teacher,
        "student": {**plan.student, "strategy": "plain", "init": "random"}, "export": {"target": ["onnx"]},
        "analysis": {"images": 0}, "distill": {"epochs": plan.epochs, "batch_size": plan.batch},
    }  # fmt: skip
    return with_absolute_paths(validate(merge(merge(load_layer("folder"), asked), sets)))


def carry_out(work: Path, cell: Cell, lines: dict[str, Line], place: str = "runs") -> Line:
    """Train in a folder below ``work/place``, judge where the plan says so, and return the line."""
    from run import claimed

    name, gpu = STUDIES[cell.study].images, STUDIES[cell.study].gpu
    if not gpu:
        torch.set_num_threads(1)
    with claimed(work, f"images-{name}", wait=True):
        images = SETS[name](work / "images")
    began = time.monotonic()
    found = _teacher(work, cell, images) if cell.phase == "teacher" else _student(work, cell, images, lines, place)
    about = {"key": cell.key, "study": cell.study, "phase": cell.phase, "arm": cell.arm, "seed": cell.seed}
    return about | found | {
        "took_seconds": round(time.monotonic() - began, 1),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": code_version(),
        "machine": torch.cuda.get_device_name() if gpu else f"{processor()}, 1 thread",
    }  # fmt: skip


def _spent() -> float:
    """Processor seconds of this process and of those that it started and have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _teacher(work: Path, cell: Cell, images: Path) -> Line:
    """The teacher, trained on its own images; a kill costs a minute."""
    study, folder, number = STUDIES[cell.study], work / "runs" / cell.folder, int(cell.arm[4:])
    settings = dict(study.tries[number])
    if settings.pop("from", None):
        settings["weights"] = str(weights_of(work, cell.study, number - 1))
    elif settings["init"] == "file":
        settings["weights"] = str(weights(work / "images"))
    source = images if study.pretrained else images / "teacher"
    before = _spent()
    runner, resolved, _ = staged(config_of(cell.study, source, teacher=settings), folder, ("teacher",))
    record = runner.records["teacher"]
    spent, metrics = _spent() - before, runner.run.metrics()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {
        "epochs": record.epochs,
        "lr": resolved.teacher.lr,
        "width": record.width,
        "parameters": record.cost.parameters,
        "images": runner.records["data"].train_images,
        "seconds": max((line["seconds"] for line in metrics if line["training"] == "teacher"), default=0.0),
        "cpu_seconds": round(spent, 1),
        "choose": record.val_top1,
        **judged(record.model, record.weights, record.preprocess, folder, images, study.gpu),
    }


def weights_of(work: Path, study: str, number: int) -> Path:
    """Where a try of the teacher left its weights; if not in this folder of work, those that are published."""
    from run import published_weights

    trained = work / "runs" / f"{study}_teacher_try-{number}_0" / "teacher" / "model.safetensors"
    kept = published_weights(study, number)
    return kept if kept.is_file() and not trained.is_file() else trained


def _base(work: Path, cell: Cell, number: int | None) -> tuple[Path, dict[str, Any]]:
    """A run of this seed that has read the data and has the teacher, and its settings of the teacher.

    What learns from labels alone, from random weights, takes of the teacher its width alone: for that one will do of
    which an epoch trains nothing but the classifier.
    """
    tried = STUDIES[cell.study].tries[number or 0]
    settings = {key: tried[key] for key in ("model", "args") if key in tried}
    if not needs_teacher(cell.arm):
        shape = {"init": "scratch", "epochs": 1, "freeze": "all but head", "batch_size": BATCH}
        return work / "runs" / f"{cell.study}_shape-{number or 0}_{cell.seed}", settings | shape
    file = str(weights_of(work, cell.study, number or 0))
    return work / "runs" / f"{cell.study}_base-{number}_{cell.seed}", settings | {"init": "file", "weights": file}


def _student(work: Path, cell: Cell, images: Path, lines: dict[str, Line], place: str) -> Line:
    """A student, from the beginning: what a killed process left is removed."""
    from run import claimed

    study, arm, idea = STUDIES[cell.study], settings_of(cell.arm), IDEAS.get(cell.arm, (None,))[0]
    base, teacher = _base(work, cell, passed(cell.study, lines))
    with claimed(work, base.name, wait=True):
        staged(config_of(cell.study, images, teacher=teacher, seed=cell.seed), base, ("teacher",))
    folder = work / place / cell.folder
    shutil.rmtree(folder, ignore_errors=True)
    epochs = epochs_of(cell, lines)
    student = arm["student"] | ({"init": study.init} if arm["student"]["init"] == "random" else {})
    distill: dict[str, Any] = {**arm["distill"], "epochs": epochs, "eval_every": epochs, "keep_every": None}
    if not study.gpu:  # a training that is killed begins again; and all are compiled, or none
        distill |= {"checkpoint_seconds": 1e9, "compile": "off"}
    part = "cache" if place == "runs" else f"cache-{place}"
    if study.augment:
        distill["augment"] = study.augment
    if cell.cached:
        distill |= {"views": epochs, "cache": {"folder": str(work / part / cell.answers)}}

    def config(**more: Any) -> Any:
        return config_of(cell.study, images, teacher=teacher, seed=cell.seed, student=student, distill=distill | more)

    runner, resolved, _ = staged(config(), folder, ("teacher", "student"), base)
    factor = cell.factor or best_factor(cell.study, cell.arm, lines) or 1.0
    lr = float(f"{factor * resolved.distill.lr:.3g}")
    before = _spent()
    with applied(idea, base, runner.records["student"].width, epochs):
        runner, resolved, _ = staged(config(lr=lr), folder, ("teacher", "student", "distill"), base)
    spent, record, made = _spent() - before, runner.records["distill"], runner.records["student"]
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    test = {} if cell.phase in ("tune", "live") else judged(
        record.model, record.weights, made.preprocess, folder, images, study.gpu
    )  # fmt: skip
    return {
        "factor": factor,
        "lr": lr,
        "epochs": record.epochs,
        "steps": record.steps,
        "images": runner.records["data"].train_images,
        "parameters": made.cost.parameters,
        "teacher": runner.records["teacher"].weights.sha256 if needs_teacher(cell.arm) else None,
        "teacher_width": runner.records["teacher"].width if needs_width(cell.arm) or needs_teacher(cell.arm) else None,
        "augment": resolved.distill.augmentation.identity(),
        "seconds": round(record.seconds, 1),
        "cpu_seconds": round(spent, 1),
        "cached": cell.cached,
        "precision": record.precision,
        "weights": record.chosen,
        "losses": record.losses,
        "choose": getattr(record, f"val_top1_{record.chosen}"),
        **test,
    }


def judged(model: Any, file: Any, spec: Any, root: Path, images: Path, gpu: bool = False) -> Line:
    """Top-1 of the weights on *test*, percent, and each image's answer: right or not, by class and file name."""
    device = "cuda" if gpu else "cpu"
    network = load_own(build_model(model), file, root).eval().to(device)
    classes = sorted(path.name for path in (images / "train").iterdir())
    files = sorted((images / "test").glob("*/*"))
    right: list[Any] = []
    with torch.inference_mode():
        for at in range(0, len(files), 256):
            part = files[at : at + 256]
            batch = torch.stack([eval_input(spec, open_image(path)) for path in part])
            labels = np.array([classes.index(path.parent.name) for path in part])
            right.append(network(batch.to(device)).argmax(1).cpu().numpy() == labels)
    found = np.concatenate(right)
    return {"test": 100 * float(found.mean()), "test_images": len(found), "right": packed(found)}
