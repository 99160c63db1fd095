"""The images that an artifact answers otherwise than the teacher, and which of them are worth looking at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import Flip, FlipTable
from vitcompress.stages.verify.answers import NO_ANSWER, Answers
from vitcompress.stages.verify.contestant import TEACHER, Contestant
from vitcompress.stages.verify.held_out import HeldOut

SHOWN = 24
"""Images shown of each artifact, at most."""
PICTURES = 72
"""Thumbnails in all, at most: artifacts of one graph mostly flip the same images, and share them."""

Shown = tuple[int, ...]
"""Positions of the images that a table shows, in the order it shows them."""


def flip_tables(models: Sequence[Contestant], held_out: HeldOut, deployed: str) -> tuple[list[FlipTable], list[Shown]]:
    """Return a table for each artifact of the ``deployed`` graph that could be run, torch's too, without thumbnails.

    Returns:
        The tables, and beside each the positions of the images it shows.
    """
    given = list(zip(models, held_out.answers, strict=True))
    teacher = next(answers for each, answers in given if (each.model, each.runtime) == (TEACHER, "torch") and answers)
    tables, shown = [], []
    for each, answers in given:
        if each.model != deployed or answers is None:
            continue
        lost, won, other = _flipped(teacher, answers)
        chosen = _chosen(teacher, answers, (lost, won, other))
        silent = int(np.count_nonzero(answers.answer == NO_ANSWER))
        table = FlipTable(
            model=each.model,
            runtime=each.runtime,
            precision=each.precision,
            lost=len(lost),
            won=len(won),
            other=len(other),
            shown=tuple(_flip(held_out, teacher, answers, position) for position in chosen),
            note=f"{silent:,} images have no answer (NaN) and are not shown" if silent else "",
        )
        tables.append(table)
        shown.append(chosen)
    return tables, shown


def _flipped(teacher: Answers, artifact: Answers) -> tuple[NDArray[np.intp], ...]:
    """Return the positions of what was lost, won, and answered wrongly by both in different ways."""
    differs = teacher.answer != artifact.answer
    groups = (teacher.right & ~artifact.right, artifact.right & ~teacher.right, ~teacher.right & ~artifact.right)
    return tuple(np.flatnonzero(differs & group) for group in groups)


def _chosen(teacher: Answers, artifact: Answers, groups: Sequence[NDArray[np.intp]]) -> Shown:
    """Return the first by the confidence of the wrong answer: lost ones, then won ones, then the rest."""
    ranked: list[int] = []
    for group, wrong in zip(groups, (artifact, teacher, artifact), strict=True):
        answered = group[(teacher.answer[group] != NO_ANSWER) & (artifact.answer[group] != NO_ANSWER)]
        order = np.argsort(-wrong.confidence[answered], kind="stable")
        ranked.extend(answered[order][:SHOWN].tolist())
    return tuple(ranked[:SHOWN])


def _flip(held_out: HeldOut, teacher: Answers, artifact: Answers, position: int) -> Flip:
    return Flip(
        image=held_out.names[position],
        label=int(held_out.labels[position]),
        teacher=int(teacher.answer[position]),
        student=int(artifact.answer[position]),
        teacher_confidence=float(teacher.confidence[position]),
        student_confidence=float(artifact.confidence[position]),
    )


def pictured(shown: Sequence[Shown]) -> list[int]:
    """Return the positions of up to ``PICTURES`` images: the first of every table before the second of any."""
    ranks = range(max((len(one) for one in shown), default=0))
    first_come = dict.fromkeys(one[rank] for rank in ranks for one in shown if rank < len(one))
    return sorted(list(first_come)[:PICTURES])


def with_pictures(
    tables: Sequence[FlipTable], shown: Sequence[Shown], files: dict[int, str], why: str
) -> tuple[FlipTable, ...]:
    """Return ``tables`` with the thumbnails there are.

    Args:
        tables: of ``flip_tables``.
        shown: likewise.
        files: path of each thumbnail relative to the run directory, by the image's position.
        why: the reason that the source could not give all of them, or nothing.
    """
    finished = []
    for table, positions in zip(tables, shown, strict=True):
        flips = tuple(
            flip.model_copy(update={"thumbnail": files.get(position, "")})
            for flip, position in zip(table.shown, positions, strict=True)
        )
        lacking = any(not flip.thumbnail for flip in flips)
        reason = why or f"pictures are of {PICTURES} images at most"
        notes = [note for note in (table.note, reason if lacking else "") if note]
        finished.append(table.model_copy(update={"shown": flips, "note": "; ".join(notes)}))
    return tuple(finished)
