"""A run with everything a page can show: flips with pictures, curves, figures, and names as unfriendly as users'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from sample_measurements import flip
from sample_reports import CASES, advice, file, report_of

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.core.measured_records import FlipTable

SCRIPT = "<script>document.title = 'taken over'</script>"
HOSTILE_FILE = 'val/it\'s "quoted" & <b>bold</b>.png'
CLASSES = (SCRIPT, "a name so long that no column was ever made for it, as taxonomists like them" * 2, *"cdefghij")
FIGURES = ("approach", "over-training", "rank-teacher", "pca-teacher")


def rich_report(root: Path) -> dict[str, Any]:
    """The report; pictures that it names are written below ``root``, but that of the figure ``pca-teacher``."""
    given = CASES["lift"]
    for name in FIGURES[:-1]:
        path = root / f"analysis/figures/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").convert("RGB").save(path)
    sample = "1,000 of 4,000 training images, evenly spread"
    changed = replace(
        given,
        data=given.data.model_copy(update={"classes": CLASSES}),
        verify=given.verify.model_copy(update={"flips": (_flips(root),), "answers": file("verify/answers.csv.gz", 9)}),
        analyze=AnalyzeRecord(images=1000, sample=sample, advice=advice("lift")),
        dynamics=DynamicsRecord(
            networks=("teacher", "student before", "student after"),
            files=tuple(file(f"analysis/figures/{name}.png", 9000) for name in FIGURES),
            approach=({"quantity": "entropy", "sentence": "entropy: closer."},),
        ),
    )
    history = [
        *_epochs("teacher", "t", 8, 92.3, {}),
        *_epochs("student", "old", 5, 60.0, {"labels": 0.4}),
        *_epochs("student", "new", 30, 91.1, {"labels": 0.3, "soft_logits": 0.5, "spectral 11<-23": 0.2}),
    ]
    return report_of(changed, history=history)


def _flips(root: Path) -> FlipTable:
    """12 lost, 6 won, 3 others; one picture gone and one outside the run."""
    (root / "report/flips").mkdir(parents=True, exist_ok=True)
    shown = []
    for number in range(21):
        name = f"report/flips/{number}.png"
        Image.new("RGB", (64, 64), (12 * number, 100, 100)).save(root / name)
        label, wrong = number % 5, 5 + number % 3
        teacher, student = (label, wrong) if number < 12 else (wrong, label) if number < 18 else (wrong, 9)
        image = HOSTILE_FILE if number == 0 else f"val/species {label}/{number:04d}.png"
        thumbnail = {3: "", 4: "report/flips/gone.png", 5: "../outside.png"}.get(number, name)
        shown.append(flip(image=image, label=label, teacher=teacher, student=student, thumbnail=thumbnail))
    return FlipTable(model="lift-folded", runtime="onnx", lost=31, won=19, other=3, shown=tuple(shown))


def _epochs(name: str, settings: str, count: int, best: float, terms: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "training": name,
            "settings": settings,
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "losses": {term: 2.0 * share / epoch for term, share in terms.items()},
            "shares": terms,
            "gradient_norms": {term: share * (2 - epoch / count) for term, share in terms.items()},
            "val_top1_raw": best * (1 - 0.5**epoch),
            "val_top1_ema": None if epoch < 3 else best * (1 - 0.4**epoch),
        }
        for epoch in range(1, count + 1)
    ]
