"""Which trainings a study has, what each waits for, and how long it should take, by the lines that are there."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from arms import (
    CEILING,
    FACTORS,
    IDEAS,
    LATER,
    LEAST_LEAD,
    LIVE,
    LONG,
    LONG_SEEDS,
    LONGER,
    QUESTIONS,
    SEEDS,
    STUDIES,
    TUNING_SEED,
    arms_of,
    asks_teacher,
    needs_teacher,
    needs_width,
)

Line = dict[str, Any]
LEADER = LIVE[0]
"""The arm that goes first of a seed: it keeps the teacher's answers that the others read."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    study: str
    phase: str
    """`tune`, `live` (its teacher runs in every step), `ceiling`, `teacher`, `seed`, `compute` or `long`."""
    arm: str
    seed: int = 0
    factor: float | None = None
    """Of the learning rate; None: the arm's best on *choose*."""

    @property
    def key(self) -> str:
        """Its name among the lines."""
        return f"{self.study} {self.phase} {self.arm} {self.seed}" + (f" x{self.factor:g}" if self.factor else "")

    @property
    def folder(self) -> str:
        """A folder's name."""
        return self.key.replace("/", "-").replace(":", "-").replace(" ", "_")

    @property
    def cached(self) -> bool:
        """Whether the teacher's answers are kept: one view an epoch, so that they are those of the live teacher."""
        return self.phase in ("tune", "seed", "long") and asks_teacher(self.arm) and not STUDIES[self.study].gpu

    @property
    def answers(self) -> str:
        """The folder of the teacher's answers: those to other views have one of their own, as their key is the same."""
        views = "-long" if self.phase == "long" else ""
        return f"{self.study}-{self.seed}{views}" + ("-rising" if IDEAS.get(self.arm, ("",))[0] == "rising" else "")


def cells_of(study: str) -> list[Cell]:
    """All trainings, in their order: long ones, what questions ask for, seed after seed, other arms, ideas."""
    asked = {arm for question in QUESTIONS for arm in question.arms}
    order = sorted(arms_of(study), key=lambda arm: (needs_teacher(arm), arm != LEADER))
    long = [arm for arm in order if arm in LONG and STUDIES[study].long]
    first = [Cell(study, "tune", "plain:labels", TUNING_SEED, factor) for factor in FACTORS]
    tries = [Cell(study, "teacher", f"try-{number}") for number in range(len(STUDIES[study].tries))]
    found = [tries[0], *first, Cell(study, "ceiling", "plain:labels"), *tries]
    found += [Cell(study, "tune", arm, TUNING_SEED, factor) for arm in long for factor in FACTORS]
    found += [Cell(study, "long", arm, seed) for seed in LONG_SEEDS for arm in long]
    found += [Cell(study, "live", arm, TUNING_SEED, 1.0) for arm in LIVE]
    wanted = [arm for arm in LONGER if f"{arm}@compute" in asked]
    for group, longer in (
        ([arm for arm in order if arm in asked], wanted),
        ([arm for arm in order if arm in LATER], []),
        ([arm for arm in order if arm not in asked | set(LATER)], [arm for arm in LONGER if arm not in wanted]),
        (list(IDEAS), []),
    ):
        found += [Cell(study, "tune", arm, TUNING_SEED, factor) for arm in group for factor in FACTORS]
        for seed in SEEDS:
            found += [Cell(study, "seed", arm, seed) for arm in group]
            found += [Cell(study, "compute", arm, seed) for arm in longer]
    return list(dict.fromkeys(found))


def passed(study: str, lines: dict[str, Line]) -> int | None:
    """Which try of the teacher beats the ceiling by the plan's points; None where that is not known yet."""
    ceiling = lines.get(Cell(study, "ceiling", "plain:labels").key)
    for number in range(len(STUDIES[study].tries)):
        line = lines.get(Cell(study, "teacher", f"try-{number}").key)
        if ceiling and line and line["test"] >= ceiling["test"] + LEAST_LEAD:
            return number
    return None


def best_factor(study: str, arm: str, lines: dict[str, Line]) -> float | None:
    """The factor that is best on *choose*, the first of ``FACTORS`` among equal ones; None before all are tried."""
    found = [lines.get(Cell(study, "tune", arm, TUNING_SEED, factor).key) for factor in FACTORS]
    tried = [line["choose"] for line in found if line]
    return FACTORS[tried.index(max(tried))] if len(tried) == len(FACTORS) else None


def ready(cell: Cell, lines: dict[str, Line]) -> bool:
    """Whether all that a training needs is there."""
    study, number = cell.study, passed(cell.study, lines)
    if cell.phase == "teacher":
        tries = [Cell(study, "teacher", f"try-{at}").key in lines for at in range(int(cell.arm[4:]))]
        ceiling = Cell(study, "ceiling", "plain:labels").key in lines
        return cell.arm == "try-0" or (all(tries) and ceiling and number is None)
    if number is None and (cell.phase == "live" or needs_teacher(cell.arm) or needs_width(cell.arm)):
        return False
    if cell.factor is None and best_factor(study, cell.arm, lines) is None:
        return False
    if cell.phase == "compute":
        return longer(cell, lines) is not None
    if cell.cached and (cell.arm, cell.factor) not in ((LEADER, None), (LEADER, 1.0)):
        return Cell(study, cell.phase, LEADER, cell.seed, cell.factor and 1.0).key in lines
    return True


def longer(cell: Cell, lines: dict[str, Line]) -> int | None:
    """Epochs that take the seconds of the longer repaired student, starting left out; None before all is measured."""
    study = cell.study
    own, labels = (lines.get(Cell(study, "live", arm, TUNING_SEED, 1.0).key) for arm in (cell.arm, "plain:labels"))
    short = lines.get(Cell(study, "tune", "plain:labels", TUNING_SEED, 1.0).key)
    long = lines.get(Cell(study, "ceiling", "plain:labels").key)
    most, epochs = goal(study, lines), STUDIES[study].epochs
    if not (own and labels and short and long and most):
        return None
    share = max(0.0, 1 - (spent(long) / spent(short) - 1) / (CEILING - 1))  # of starting; these two ran side by side
    start = share * spent(labels)
    return max(epochs, round(epochs * (most - start) / (spent(own) - start)))


def epochs_of(cell: Cell, lines: dict[str, Line]) -> int:
    """How many epochs a student trains."""
    study = STUDIES[cell.study]
    if cell.phase == "ceiling":
        return study.epochs * CEILING
    asked = longer(cell, lines) if cell.phase == "compute" else study.long if cell.phase == "long" else None
    return asked or study.epochs


def goal(study: str, lines: dict[str, Line]) -> float | None:
    """Seconds that trainings of equal compute fill; None before they are measured."""
    found = [lines.get(Cell(study, "live", arm, TUNING_SEED, 1.0).key) for arm in LIVE[:2]]
    return max(spent(line) for line in found if line) if all(found) else None


def spent(line: Line) -> float:
    """Seconds that a training took: the processor's, or with a GPU the clock's."""
    return float(line["seconds" if STUDIES[line["study"]].gpu else "cpu_seconds"])


def needless(cell: Cell, lines: dict[str, Line]) -> bool:
    """Whether it is a further try of a teacher that has passed, or needs one when all tries have failed."""
    number = passed(cell.study, lines)
    if cell.phase == "teacher":
        return number is not None and int(cell.arm[4:]) > number
    failed = number is None and all(
        Cell(cell.study, phase, arm).key in lines
        for phase, arm in (("ceiling", "plain:labels"), ("teacher", f"try-{len(STUDIES[cell.study].tries) - 1}"))
    )
    return failed and (cell.phase in ("live", "compute") or needs_teacher(cell.arm))


def expected(cell: Cell, lines: dict[str, Line]) -> float | None:
    """Processor seconds that a training is expected to take, from those that are there."""
    mine = [line for line in lines.values() if line["study"] == cell.study and line["phase"] != "teacher"]
    if cell.phase in ("teacher", "ceiling") or not mine:
        return None
    if cell.phase == "compute":
        return goal(cell.study, lines)
    same = [line for line in mine if line["arm"] == cell.arm and line["phase"] in ("tune", "seed")]
    like = [line for line in mine if asks_teacher(line["arm"]) == asks_teacher(cell.arm) and line["phase"] != "ceiling"]
    return epochs_of(cell, lines) / STUDIES[cell.study].epochs * median(spent(line) for line in same or like or mine)
