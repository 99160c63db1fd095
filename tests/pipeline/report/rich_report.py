"""A run with everything a report can show: many artifacts and classes, sessions, flips with pictures, curves, figures.

Names are as unfriendly as users' folders allow: HTML, quotes, great length.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sample_reports import CASES, COSTS, P50, accuracy, file, latency, report_of
from sklearn.datasets import load_digits

from vitcompress.core.analysis_records import Advice, AnalyzeRecord, DynamicsRecord, Recommendation
from vitcompress.core.artifact_records import (
    AccuracyRow,
    Flip,
    FlipTable,
    GatesRecord,
    Hardware,
    LatencyRow,
    MemoryRow,
    ThroughputRow,
    VerifyRecord,
)
from vitcompress.pipeline.report.document import Records

SCRIPT = "<script>document.title = 'taken over'</script>"
HOSTILE_FILE = 'val/it\'s "quoted" & <b>bold</b>.png'
CLASSES = tuple(
    [SCRIPT, "a name that is so long that no column was ever made for it, as taxonomists like them" * 2]
    + [f"species {number}" for number in range(2, 40)]
)
IMAGES_OF_A_CLASS = 25
SESSIONS = 5
BATCHES = (1, 8)
MODELS = (("teacher", "fp32", 1.0), ("lift-kept", "fp32", 1.0), ("lift-folded", "fp32", 1.0),
          ("lift-folded", "fp16", 0.97), ("lift-folded", "int8", 0.62))  # fmt: skip
"""Model, precision, its time over that of fp32."""
QUANTILES = np.linspace(0, 1, 21)


def rich_records(root: Path) -> Records:
    """The records; pictures that they name are written below ``root``."""
    random = np.random.default_rng(7)
    given = CASES["lift"]
    return replace(
        given,
        data=given.data.model_copy(update={"classes": CLASSES}),
        verify=_verify(root, random),
        gates=GatesRecord(
            rows=(
                *given.gates.rows,
                given.gates.rows[0].model_copy(
                    update={"gate": "min_speedup", "limit": 8.0, "value": 8.4, "low": 8.2, "high": 8.7}
                ),
            ),
            passed=True,
        ),
        analyze=AnalyzeRecord(images=1000, sample="1,000 of 4,000 training images, evenly spread", advice=_advice()),
        dynamics=_dynamics(root),
    )


def _verify(root: Path, random: np.random.Generator) -> VerifyRecord:
    before = CASES["lift"].verify
    engines = [row for row in before.accuracy if row.runtime == "tensorrt-rtx"]
    slow = [row for row in before.latency if row.runtime == "tensorrt-rtx"]
    return before.model_copy(
        update={
            "accuracy": (
                _counted(accuracy("teacher", "torch", 92.3, None), random, 0.0),
                _counted(accuracy("lift-kept", "torch", 91.1, 1.2), random, 1.2),
                *(_counted(_onnx_accuracy(model, precision), random, 1.4) for model, precision, _ in MODELS),
                *engines,
            ),
            "latency": (*(_timed(*model, batch, random) for model in MODELS for batch in BATCHES), *slow),
            "latency_method": "Wall time, 5 sessions of 60 interleaved rounds in one process, 2 threads",
            "throughput": tuple(_throughput(*model, batch) for model in MODELS for batch in (1, 2, 4, 8, 16, 32)),
            "memory": tuple(_memory(model, precision) for model, precision, _ in MODELS),
            "flips": (_flips(root, "fp32"), _flips(root, "int8")),
            "hardware": Hardware(processor="Imagined CPU", architecture="x86_64", cores=2, threads=2),
            "pinned": (0, 1),
            "images_digest": "a" * 64,
            "class_images": (IMAGES_OF_A_CLASS,) * len(CLASSES),
            "answers": file("verify/answers.csv.gz", 40_000),
        }
    )


def _onnx_accuracy(model: str, precision: Any) -> AccuracyRow:
    drops = {"teacher": 0.0, "lift-kept": 1.2, "lift-folded": 1.23}
    drop = drops[model] + {"fp32": 0.0, "fp16": 0.07, "int8": 1.6}[precision]
    return accuracy(model, "onnx", 92.3 - drop, drop, precision=precision)


def _counted(row: AccuracyRow, random: np.random.Generator, loss: float) -> AccuracyRow:
    right = random.binomial(IMAGES_OF_A_CLASS, (92.3 - loss) / 100, len(CLASSES))
    top1 = row.top1 or 0.0
    return row.model_copy(
        update={
            "top1_low": top1 - 1.7,
            "top1_high": top1 + 1.5,
            "agreement": None if row.runtime == "torch" else 99.6,
            "agreement_low": None if row.runtime == "torch" else 98.9,
            "agreement_high": None if row.runtime == "torch" else 99.9,
            "ece": 2.41 + loss,
            "class_right": tuple(int(count) for count in right),
        }
    )


def _timed(model: str, precision: Any, factor: float, batch: int, random: np.random.Generator) -> LatencyRow:
    row = latency(model, "onnx", batch, precision=precision)
    middle = (row.p50_ms or 0.0) * factor
    samples = middle * random.lognormal(0.0, 0.05, (SESSIONS, 60)) * random.lognormal(0.0, 0.015, (SESSIONS, 1))
    medians = np.median(samples, axis=1)
    p50, p90, p99 = (float(np.quantile(samples, share)) for share in (0.5, 0.9, 0.99))
    return row.model_copy(
        update={
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "p50_low": float(medians.min()),
            "p50_high": float(medians.max()),
            "samples": samples.size,
            "speedup": P50["teacher"] / (P50[model] * factor),
            "session_p50_ms": tuple(float(median) for median in medians),
            "quantiles_ms": tuple(float(value) for value in np.quantile(samples, QUANTILES)),
            "warm_up_rounds": 31,
            "settled": precision != "int8",
        }
    )


def _throughput(model: str, precision: Any, factor: float, batch: int) -> ThroughputRow:
    rate = 1000 / (P50[model] * factor) * batch**0.25
    return ThroughputRow(
        model=model, runtime="onnx", precision=precision, batch=batch, images_per_second=rate, low=rate * 0.96,
        high=rate * 1.04, samples=40,
    )  # fmt: skip


def _memory(model: str, precision: Any) -> MemoryRow:
    if precision == "int8":
        why = "the process was stopped after 60 s"
        return MemoryRow(model=model, runtime="onnx", precision=precision, batch=1, peak_rss_bytes=None, reason=why)
    own = 6 * COSTS[model].parameters
    return MemoryRow(
        model=model, runtime="onnx", precision=precision, batch=1, peak_rss_bytes=60_000_000 + own,
        empty_rss_bytes=60_000_000,
    )  # fmt: skip


def _flips(root: Path, precision: Any) -> FlipTable:
    """12 lost, 6 won, 3 others; real digits as pictures, one picture gone and one outside the run."""
    digits = load_digits().images
    shown = []
    for number in range(21):
        name = f"report/flips/{number}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits[number] * 15.9).astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST).save(path)
        label, wrong = number % 5, 5 + number % 3
        teacher, student = (label, wrong) if number < 12 else (wrong, label) if number < 18 else (wrong, 9)
        shown.append(
            Flip(
                image=HOSTILE_FILE if number == 0 else f"val/species {label}/{number:04d}.png",
                label=label,
                teacher=teacher,
                student=student,
                teacher_confidence=0.93 - number / 50,
                student_confidence=0.91 - number / 40,
                thumbnail={3: "", 4: "report/flips/gone.png", 5: "../outside.png"}.get(number, name),
            )
        )
    return FlipTable(
        model="lift-folded", runtime="onnx", precision=precision, lost=31, won=19, other=3, shown=tuple(shown)
    )


def _advice() -> Advice:
    answer = Recommendation(
        what="strategy",
        value="lift",
        rule="shared basis does not fit",
        reason="an image needs 302 directions of the basis that all images share, and the student is 192 wide.",
        numbers={"d95": 302.0},
        confidence=0.98,
        source="[EM] arXiv 2511.15572: dataset-level PCA",
    )
    return Advice(strategy="lift", kind="spectral", pairs=((11, 23),), wide_heads=None, images=1000,
                  recommendations=(answer,), summary="lift; spectral, 11 <-> 23")  # fmt: skip


def _dynamics(root: Path) -> DynamicsRecord:
    from matplotlib.figure import Figure

    names = ("approach", "over-training", "rank-teacher", "sep-student-after", "pca-teacher")
    for name in names[:-1]:
        figure = Figure(figsize=(7, 3), dpi=60)
        figure.subplots().plot([3, 2, 1.4, 1.1])
        path = root / f"analysis/figures/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    sentence = "entropy: 0.363 from the teacher's curve before training and 0.104 after, a change of -0.259: closer."
    return DynamicsRecord(
        networks=("teacher", "student before", "student after"),
        files=tuple(file(f"analysis/figures/{name}.png", 9000) for name in names),
        approach=({"quantity": "entropy", "sentence": sentence},),
    )


def history() -> list[dict[str, Any]]:
    """Epochs of a teacher, of a student, and of an earlier student with other settings."""
    return [
        *_epochs("teacher", "t" * 12, 8, 92.3, {}),
        *_epochs("student", "old" * 4, 5, 60.0, {"labels": 0.4}),
        *_epochs("student", "new" * 4, 30, 91.1, {"labels": 0.3, "soft_logits": 0.5, "spectral 11<-23": 0.2}),
    ]


def _epochs(name: str, settings: str, count: int, best: float, terms: dict[str, float]) -> list[dict[str, Any]]:
    lines = []
    for epoch in range(1, count + 1):
        part = epoch / count
        loss = 0.2 + 2.1 * float(np.exp(-4 * part))
        lines.append(
            {
                "training": name,
                "settings": settings,
                "epoch": epoch,
                "loss": loss,
                "losses": {term: share * loss for term, share in terms.items()},
                "shares": terms,
                "gradient_norms": {term: share * (2 - part) for term, share in terms.items()},
                "val_top1_raw": best * (1 - float(np.exp(-5 * part))),
                "val_top1_ema": None if epoch < 3 else best * (1 - float(np.exp(-6 * part))),
                "lr": 5e-4 * 0.5 * (1 + float(np.cos(np.pi * part))),
            }
        )
    return lines


def rich_report(root: Path, **changed: Any) -> dict[str, Any]:
    """The report of those records, as it comes back from JSON."""
    report = report_of(rich_records(root), **{"history": history(), **changed})
    loaded: dict[str, Any] = json.loads(json.dumps(report))
    return loaded
