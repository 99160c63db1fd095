"""A run with everything a report can show: many artifacts and classes, sessions, flips with pictures, curves, figures.

Names are as unfriendly as users' folders allow: HTML, quotes, great length.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measured_reports import measured
from PIL import Image
from sample_reports import CASES, accuracy, file, report_of
from sklearn.datasets import load_digits

from vitcompress.core.analysis_records import Advice, AnalyzeRecord, DynamicsRecord, Recommendation
from vitcompress.core.artifact_records import AccuracyRow, Flip, FlipTable, GatesRecord, Hardware
from vitcompress.pipeline.report.document import Records

SCRIPT = "<script>document.title = 'taken over'</script>"
HOSTILE_FILE = 'val/it\'s "quoted" & <b>bold</b>.png'
CLASSES = tuple(
    [SCRIPT, "a name that is so long that no column was ever made for it, as taxonomists like them" * 2]
    + [f"species {number}" for number in range(2, 40)]
)
IMAGES_OF_A_CLASS = 25


def rich_records(root: Path) -> Records:
    """The records; pictures that they name are written below ``root``."""
    given = CASES["lift"]
    int8 = {"precision": "int8", "settled": False}
    fast = [row.model_copy(update={**int8, "p50_ms": 0.62 * (row.p50_ms or 0)}) for row in given.verify.latency[4:6]]
    slow = accuracy("lift-folded", "onnx", 89.47, 2.83, precision="int8")
    verify = given.verify.model_copy(
        update={"accuracy": (*given.verify.accuracy, slow), "latency": (*given.verify.latency, *fast)}
    )
    found = measured(replace(given, verify=verify))
    random = np.random.default_rng(7)
    more = {
        "accuracy": tuple(_counted(row, random) for row in found.verify.accuracy),
        "throughput": tuple(
            row.model_copy(
                update={"low": 0.96 * (row.images_per_second or 0), "high": 1.04 * (row.images_per_second or 0)}
            )
            for row in found.verify.throughput
        ),
        "flips": (_flips(root, "fp32"), _flips(root, "int8")),
        "hardware": Hardware(processor="Imagined CPU", architecture="x86_64", cores=2, threads=2),
        "pinned": (0, 1),
        "class_images": (IMAGES_OF_A_CLASS,) * len(CLASSES),
        "answers": file("verify/answers.csv.gz", 40_000),
    }
    speed = given.gates.rows[0].model_copy(
        update={"gate": "min_speedup", "limit": 8.0, "value": 8.4, "low": 8.2, "high": 8.7}
    )
    return replace(
        found,
        data=given.data.model_copy(update={"classes": CLASSES}),
        verify=found.verify.model_copy(update=more),
        gates=GatesRecord(rows=(*given.gates.rows, speed), passed=True),
        analyze=AnalyzeRecord(images=1000, sample="1,000 of 4,000 training images, evenly spread", advice=_advice()),
        dynamics=_dynamics(root),
    )


def _counted(row: AccuracyRow, random: np.random.Generator) -> AccuracyRow:
    right = random.binomial(IMAGES_OF_A_CLASS, (row.top1 or 0) / 100, len(CLASSES))
    return row if row.top1 is None else row.model_copy(update={"class_right": tuple(map(int, right))})


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
