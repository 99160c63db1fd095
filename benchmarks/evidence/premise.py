"""Whether students lack directions of their teacher, as the papers say that theirs do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arms import STUDENT

Line = dict[str, Any]


def premise(lines: Sequence[Line]) -> str:
    """Say of each study's teacher, from lines of mechanism.py, how many directions it needs and its students have.

    [EM]'s dataset PCA: of the basis of all images, the fewest vectors that hold the energy of an image; ours is the
    median over images.
    """
    own = [line for line in lines if line["kind"] == "teacher" and str(line["teacher"]).startswith("try")]
    if not own:
        return ""
    have = int(STUDENT["args"]["embed_dim"])
    told = [
        "**Is the premise of [EM] met?** Its CaiT-S24 needs 302 (359) shared directions for 95 % (99 %) of an image's "
        f"energy, as published; DeiT-Tiny has 192. Here, with students of {have}:",
        "",
    ]
    for line in own:
        most, all_but = (line["taps"][-1]["pca_rank"][share] for share in ("95", "99"))
        verdict = "met" if most > have else "met in part: 95 % fit, 99 % do not"
        if all_but <= have:
            verdict = "not met: such a student can carry 99 % of what it is to imitate"
        told.append(f"- {line['study']}: {most:g} ({all_but:g}) of {line['width']}: {verdict}.")
    told += ["", "Where it is not met, the answers do not speak of students that do lack directions."]
    return "\n".join(told) + "\n"
