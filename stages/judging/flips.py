"""The images that an artifact answers otherwise than the teacher, and which of them are worth looking at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.measured_records import Flip, FlipTable
from vitcompress.stages.judging.answers import NO_ANSWER, Answers, HeldOut
from vitcompress.stages.judging.contestant import TEACHER, Contestant

SHOWN = 24
"""Images shown of each artifact, at most."""

Picture = Callable[[Sequence[int]], tuple[dict[int, str], str]]
"""Makes thumbnails of the images at these positions: path of each relative to the run directory, by position, and why
some are missing, or nothing."""


def flip_tables(
    models: Sequence[Contestant], held_out: HeldOut, deployed: str, picture: Picture
) -> tuple[FlipTable, ...]:
    """Return a table for each artifact of the ``deployed`` graph that could be run, torch's too."""
    given = list(zip(models, held_out.answers, strict=True))
    teacher = next(answers for each, answers in given if (each.model, each.runtime) == (TEACHER, "torch") and answers)
    found = [
        (each, answers, _flipped(teacher, answers)) for each, answers in given if each.model == deployed and answers
    ]
    several = held_out.labels.ndim == 2
    chosen = [[] if several else _chosen(teacher, answers, groups) for _, answers, groups in found]
    files, why = picture(sorted({position for positions in chosen for position in positions}))
    tables = []
    for (each, answers, (lost, won, other)), positions in zip(found, chosen, strict=True):
        silent = int(np.count_nonzero(answers.answer == NO_ANSWER))
        notes = [f"{silent:,} images have no answer (NaN) and are not shown"] if silent else []
        if several:
            notes.append("images with several labels are not shown: verify/answers.csv.gz has what is decided of each")
        if any(position not in files for position in positions):
            notes.append(why)
        table = FlipTable(
            **each.names,
            lost=len(lost),
            won=len(won),
            other=len(other),
            shown=tuple(_flip(held_out, teacher, answers, position, files.get(position, "")) for position in positions),
            note="; ".join(notes),
        )
        tables.append(table)
    return tuple(tables)


def _flipped(teacher: Answers, artifact: Answers) -> tuple[NDArray[np.intp], ...]:
    """Return the positions of what was lost, won, and answered wrongly by both in different ways."""
    differs = teacher.answer != artifact.answer
    groups = (teacher.right & ~artifact.right, artifact.right & ~teacher.right, ~teacher.right & ~artifact.right)
    return tuple(np.flatnonzero(differs & group) for group in groups)


def _chosen(teacher: Answers, artifact: Answers, groups: Sequence[NDArray[np.intp]]) -> list[int]:
    """Return the first by the confidence of the wrong answer: lost ones, then won ones, then the rest."""
    ranked: list[int] = []
    for group, wrong in zip(groups, (artifact, teacher, artifact), strict=True):
        answered = group[(teacher.answer[group] != NO_ANSWER) & (artifact.answer[group] != NO_ANSWER)]
        order = np.argsort(-wrong.confidence[answered], kind="stable")
        ranked.extend(answered[order].tolist())
    return ranked[:SHOWN]


def _flip(held_out: HeldOut, teacher: Answers, artifact: Answers, position: int, thumbnail: str) -> Flip:
    return Flip(
        image=held_out.names[position],
        label=int(held_out.labels[position]),
        teacher=int(teacher.answer[position]),
        student=int(artifact.answer[position]),
        teacher_confidence=float(teacher.confidence[position]),
        student_confidence=float(artifact.confidence[position]),
        thumbnail=thumbnail,
    )
