"""What is judged of the training rather than of an artifact: the teacher's worth, and whether anything was learned."""

from __future__ import annotations

from vitcompress.core.artifact_records import GateRow, VerifyRecord
from vitcompress.core.records import ControlRecord, Graph
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.judge import Judged, Measurement
from vitcompress.stages.training.chance import against_chance, chance_of

STUDENT = "student"
"""What a reader is told that these rows are about."""
NO_CONTROL = "no control was trained: compress run ... --control labels"


def judged_training(config: GatesConfig, control: ControlRecord) -> Judged:
    """The teacher's worth as it comes before the judge: required, for nobody sets its limit by accident."""
    gain = Measurement("teacher_gain", control.gain, control.gain_low, control.gain_high, NO_CONTROL)
    return Judged(STUDENT, {"min_teacher_gain": config.min_teacher_gain}, [gain], required=True)


def at_chance(deployed: Graph, verify: VerifyRecord, classes: int) -> tuple[GateRow, ...]:
    """A failed row where the trained student is no better than chance by the exact test; else nothing.

    It is judged in torch, as it was trained. Where too few images were held out to tell, nothing is said here.
    """
    row = verify.accuracy_of(deployed, "torch", "fp32")
    if row is None or row.top1 is None or not verify.class_images:
        return ()
    images, chance = row.images, chance_of(verify.class_images, classes)
    if against_chance(round(row.top1 / 100 * images), images, chance) != "no better":
        return ()
    return (
        GateRow(
            gate="above_chance",
            artifact=STUDENT,
            limit=100 * chance,
            value=row.top1,
            low=row.top1_low,
            high=row.top1_high,
            verdict="fail",
            required=True,
            why="by an exact binomial test it is no better than answering without looking at the images",
        ),
    )
