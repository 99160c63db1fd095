"""What networks' features look like: per image, over the data set, beside their teacher's; and the grid of pairs.

    python benchmarks/evidence/mechanism.py             # what run.py has trained below --work, and all teachers
    python benchmarks/evidence/mechanism.py --pairs     # trains the grid of teachers and students (pairs.py)
    python benchmarks/evidence/mechanism_page.py        # docs/evidence/mechanism.md, from the raw lines alone

For each teacher, and each student before and after training: energy dimensions of an image, dataset PCA, bandwidths of
the channels' spectrum, all by the product's own analysis; CKA of every layer with every layer of the teacher; and the
gap of the last tap. A line in benchmarks/results/evidence/mechanism.jsonl a network; what is there is not made again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[0]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import run
import schedule
from code_version import code_version
from gates_latency import append
from similarity import Floats, cka, gram_of

from vitcompress.core.machine import processor
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.plan import BY_NAME
from vitcompress.stages.analysis.advice import advise
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.document import document
from vitcompress.stages.analysis.network import measure_network, tap_names
from vitcompress.stages.analysis.results import ENERGY_SHARES, NetworkResult
from vitcompress.stages.analysis.sample import Sample, training_sample
from vitcompress.stages.distill.losses.alignment import aligned
from vitcompress.stages.distill.losses.features import spectral
from vitcompress.stages.distill.pairs import LayerPair
from vitcompress.stages.models.build import build_model, logits_and_taps
from vitcompress.stages.models.geometry import shape_by_name
from vitcompress.stages.models.weights import load_own

RESULTS = Path(__file__).resolve().parents[1] / "results" / "evidence" / "mechanism.jsonl"
IMAGES = 500
"""Training images that networks are read on, evenly spread over them."""
BATCH = 50


@dataclass(frozen=True)
class Read:
    """A network over the sample."""

    result: NetworkResult
    grams: list[Floats]
    """Of each tap."""
    last: Tensor
    """The last tap, float32 ``[N, D, H, W]``; of a lift, behind its projector, as the loss sees it."""


def read(network: nn.Module, spec: ModelSpec, preprocess: PreprocessSpec, sample: Sample, label: str) -> Read:
    """Measure every tap of a network that has its weights."""
    batches = list(sample.batches(preprocess, batch_size=BATCH, workers=0))
    names = tap_names(spec.arch, spec.args)
    result = measure_network(
        network,
        batches,
        names=names,
        label=label,
        arch=spec.name,
        images=sample.count,
        memory_bytes=AnalysisConfig().memory_mb * 10**6,
        device="cpu",
        sample=sample.words,
    )
    layers = tuple(range(len(names)))
    with torch.inference_mode():
        parts = [logits_and_taps(network, batch, layers)[1] for batch in batches]
    taps = [torch.cat(tap) for tap in zip(*parts, strict=True)]
    return Read(result, [gram_of(tap.numpy()) for tap in taps], taps[-1])


def gap(student: Tensor, teacher: Tensor) -> float:
    """Return the spectral loss [SKD] of two taps ``[N, D, H, W]`` over that of a student that answers zeros.

    Brought to one shape as in training: a plain student sees the teacher's channels pooled to its own width.
    """
    ours, theirs = aligned(LayerPair("spectral", -1, -1, "pool", 1.0), student, teacher)
    return float(spectral.loss(ours, theirs) / spectral.loss(torch.zeros_like(ours), theirs))


def taps_of(result: NetworkResult) -> list[dict[str, Any]]:
    """Return what is kept of each tap: of ranks ``[median, 99th percentile]`` over images, by percent of the energy."""
    return [
        {
            "width": tap["width"],
            "rank": {share: [found["median"], found["p99"]] for share, found in tap["rank"].items()},
            "pca": tap["pca"],
            "pca_rank": {share: found["median"] for share, found in tap["pca_rank"].items()},
            "sep_unfolded": tap["sep_unfolded"]["90"],
            "sep_folded": tap["sep_folded"]["90"],
            "sep_sorted": tap["sep_sorted"]["90"],
        }
        for tap in document([result], None)["networks"][0]["taps"]
    ]


def record_of(folder: Path, name: str) -> Any:
    """Return what a stage of a run directory handed on."""
    return RunDirectory.existing(folder).load_record(name, BY_NAME[name].record)


@lru_cache(maxsize=1)
def teacher_of(base: Path, images: int) -> Read:
    """Read the teacher of a run directory; its students follow each other."""
    teacher, sample = record_of(base, "teacher"), training_sample(record_of(base, "data"), images)
    network = load_own(build_model(teacher.model), teacher.weights, base)
    return read(network, teacher.model, teacher.preprocess, sample, "teacher")


def teacher_line(base: Path, images: int) -> dict[str, Any]:
    """Return what is kept of a teacher."""
    teacher = record_of(base, "teacher")
    return {"width": teacher.width, "choose": teacher.val_top1, "taps": taps_of(teacher_of(base, images).result)}


def student_line(base: Path, folder: Path, when: str, images: int) -> dict[str, Any]:
    """Return what is kept of a student ``before`` or ``after`` training, beside the teacher of ``base``.

    A student of labels alone may have been trained in a run with another teacher, which it did not see.
    """
    student, sample = record_of(folder, "student"), training_sample(record_of(base, "data"), images)
    weights = student.weights if when == "before" else record_of(folder, "distill").weights
    own = read(load_own(build_model(student.model), weights, folder), student.model, student.preprocess, sample, when)
    theirs = teacher_of(base, images)
    return {
        "width": student.width,
        "cka": [[round(cka(one, other), 4) for other in theirs.grams] for one in own.grams],
        "gap": gap(own.last, theirs.last),
        "taps": taps_of(own.result),
    }


def advice_line(base: Path, folder: Path, images: int) -> dict[str, Any]:
    """Return what the advisor says of a teacher and the student of ``folder``, and the d95 that it went by."""
    student, result = record_of(folder, "student"), teacher_of(base, images).result
    last, share = result.taps[-1], ENERGY_SHARES.index(0.95)
    given = advise(result, shape_by_name(student.model.arch, student.model.args), student.model.arch)
    return {
        "d95": {way: float(np.median(last.view(way).shared[:, share])) for way in last.ways},
        "advice": given.strategy,
        "confidence": given.recommendations[0].confidence,
    }


class Lines:
    """The raw lines, each kept as soon as it is made, and made once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.keys = set(run.Lines(path).read())

    def once(self, kind: str, about: dict[str, Any], make: Callable[[], dict[str, Any]]) -> None:
        """Append a line, if there is none of this kind about the same."""
        key = " ".join(map(str, (kind, *about.values())))
        if key in self.keys:
            return
        began = time.monotonic()
        made = json.loads(json.dumps(make()), parse_float=lambda text: float(f"{float(text):.5g}"))
        told = {"seconds": round(time.monotonic() - began, 2), "commit": code_version(), "machine": processor()}
        append(self.path, {"kind": kind, "key": key, **about, **made, **told})
        self.keys.add(key)
        click.echo(f"{time.strftime('%H:%M:%S')} {key}: {told['seconds']} s", err=True)


def lines_in(path: Path) -> list[dict[str, Any]]:
    """Return all lines; one that a kill cut off is left out."""
    return list(run.Lines(path).read().values())


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)
@click.option("--images", default=IMAGES, show_default=True, help="Training images that networks are read on.")
@click.option("--seeds", default=1, show_default=True, help="Of each arm, from 0 on.")
@click.option("--pairs", is_flag=True, help="Train the grid of teachers and students, and ask the advisor about each.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(work: Path, images: int, seeds: int, pairs: bool, results: Path) -> None:
    """Measure what is not in the results."""
    torch.set_num_threads(1)  # as the trainings
    work, lines = work.resolve(), Lines(results)
    if pairs:
        from pairs import train_pairs

        return train_pairs(work, lines, images)
    trained = run.Lines(work / "arms.jsonl").read()
    for study in dict.fromkeys(one["study"] for one in trained.values()):
        number = schedule.passed(study, trained)
        base = work / "runs" / f"{study}_base-{number}_0"  # of seed 0; all seeds have one teacher
        if not (base / "state.json").is_file():
            click.echo(f"left out: {study} has no teacher yet that is better than its students ({base} is not there).")
            continue
        lines.once("teacher", {"study": study, "teacher": f"try-{number}"}, partial(teacher_line, base, images))
        for one in trained.values():
            if (one["study"], one["phase"]) != (study, "seed") or one["seed"] >= seeds:
                continue
            folder = work / "runs" / schedule.Cell(study, "seed", one["arm"], one["seed"]).folder
            if not folder.is_dir():
                click.echo(f"left out: {one['key']} was trained elsewhere ({folder} is not there).")
                continue
            for when in ("before", "after"):
                about = {"study": study, "arm": one["arm"], "seed": one["seed"], "when": when}
                lines.once("student", about, partial(student_line, base, folder, when, images))


if __name__ == "__main__":
    main()
