"""The grid behind the two predictions of docs/evidence/plan.md: teachers, students of several widths, plain and lift.

With soft KD alone beside it: what features add to a plain student, by the directions that it lacks.

Trained by the stages and settings of run.py, with twenty epochs, first weights whose size follows the width, and the
product's own learning rate, which nothing chose; each teacher is used, whether it beats the ceiling or not, because the
question is about differences of students.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from arms import ARMS, STUDENT, STUDIES
from data import SETS
from mechanism import Lines, advice_line, teacher_line
from real_cells import staged
from trainings import config_of, judged, weights_of

EPOCHS, SEEDS = 20, (0,)
"""Of a student."""
TEACHERS = {"fashion": (96, 144), "letters": (96, 144)}
"""Widths, by study; a head has 16 channels."""
WIDTHS = (12, 24, 48)
"""Of students, all with three heads."""
STRATEGIES = {"lift": "lift:soft+spectral", "plain": "plain:soft+spectral", "soft": "plain:soft"}
"""The first keeps the teacher's answers, which the others read."""


def train_pairs(work: Path, lines: Lines, images: int) -> None:
    """Train whatever has no line, a teacher and all of its students after the other."""
    for study, widths in TEACHERS.items():
        for width in widths:
            pictures = SETS[STUDIES[study].images](work / "images")
            base, settings = teacher_run(work, study, width, pictures)
            about = {"study": study, "teacher": width}
            lines.once("teacher", about, partial(teacher_line, base, images))
            for seed in SEEDS:
                cache = work / "cache" / f"pairs-{study}-{width}-{seed}"
                for own in WIDTHS:
                    folder = work / "pairs" / f"{study}-{width}" / f"{own}-advice"
                    student = {"args": {"embed_dim": own}, "init": "random", "strategy": "plain"}
                    staged(
                        config_of(study, pictures, teacher=settings, student=student),
                        folder,
                        ("teacher", "student"),
                        base,
                    )
                    lines.once("advice", about | {"width": own}, partial(advice_line, base, folder, images))
                    for strategy in STRATEGIES:
                        pair = about | {"width": own, "strategy": strategy, "seed": seed}
                        train = partial(trained, pictures, base, settings, cache, folder.parent)
                        lines.once("pair", pair, partial(train, study, own, strategy, seed))
                shutil.rmtree(cache, ignore_errors=True)


def teacher_run(work: Path, study: str, width: int, images: Path) -> tuple[Path, dict[str, Any]]:
    """Return a run that has read the data and has the teacher, and its settings there.

    It is the study's own, where that has the width and is trained, or one that is trained now, in a run of its own.
    """
    tried, own = dict(STUDIES[study].tries[0]), work / "pairs" / f"{study}-{width}"
    known = weights_of(work, study, 0)
    tried["args"] = tried["args"] | {"embed_dim": width, "num_heads": width // 16}
    if tried["args"] == STUDIES[study].tries[0]["args"] and known.is_file():
        file = known  # the teacher of the study
    else:
        staged(config_of(study, images / "teacher", teacher=tried), own / "teacher", ("teacher",))
        file = own / "teacher" / "teacher" / "model.safetensors"
    settings = {**{key: tried[key] for key in ("model", "args")}, "init": "file", "weights": str(file)}
    staged(config_of(study, images, teacher=settings), own / "base", ("teacher",))
    return own / "base", settings


def trained(
    images: Path, base: Path, teacher: dict[str, Any], cache: Path, runs: Path, study: str, width: int, strategy: str,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Train one student; return its top-1 on *test*, percent, of the weights that the product would deploy."""
    arm = ARMS[STRATEGIES[strategy]]
    distill: dict[str, Any] = {
        "epochs": EPOCHS,
        "views": EPOCHS,
        "cache": {"folder": str(cache)},
        "checkpoint_seconds": 1e9,
    }
    if STUDIES[study].augment:
        distill["augment"] = STUDIES[study].augment
    config = config_of(
        study, images, teacher=teacher, seed=seed, distill=distill | arm["distill"],
        student=arm["student"] | {"init": "xavier", "args": STUDENT["args"] | {"embed_dim": width}},
    )  # fmt: skip
    folder = runs / f"{width}-{strategy}-{seed}"
    runner, resolved, _ = staged(config, folder, ("teacher", "student", "distill"), base)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    record, student = runner.records["distill"], runner.records["student"]
    test = judged(record.model, record.weights, student.preprocess, folder, images)
    return {
        "teacher_choose": runner.records["teacher"].val_top1,
        "epochs": record.epochs,
        "lr": resolved.distill.lr,
        "train_seconds": round(record.seconds, 1),
        "test": test["test"],
        "test_images": test["test_images"],
    }
