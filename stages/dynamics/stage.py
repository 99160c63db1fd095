"""Watch the student: its features before training, at every kept snapshot and after, beside the teacher's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safetensors.torch import load_file
from torch import Tensor

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.core.context import Context
from vitcompress.core.files import reference
from vitcompress.core.records import DataRecord, DistillRecord, StudentRecord, TeacherRecord
from vitcompress.stages.analysis.approach import approach
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import read_network
from vitcompress.stages.analysis.sample import training_sample
from vitcompress.stages.analysis.write import load, remove, write
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.snapshots import load_snapshot


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    analyze: AnalyzeRecord
    student: StudentRecord
    distill: DistillRecord


def run(config: AnalysisConfig, inputs: Inputs, context: Context) -> DynamicsRecord:
    """Measure the student as it began, at its snapshots and as it ended, on the teacher's images; write ``analysis/``.

    The teacher's own figures are those that ``analyze`` drew. A ResultError is raised if a tap has values that are not
    finite.
    """
    root, student, read = context.run.root, inputs.student, inputs.analyze
    if read.measures is None:
        remove(root / "analysis")
        return DynamicsRecord(reason=read.reason)
    teacher = load(read.measures, root)
    sample = training_sample(inputs.data, config.images)
    followed, missing = [], []
    for epoch, label, found in _weights(inputs, root):
        if isinstance(found, str):
            context.say(f"left out: {found}")
            missing.append(found)
            continue
        network = build_model(student.model)
        network.load_state_dict(found)
        followed.append(
            read_network(network, student.model, student.preprocess, sample, config, context, label=label, epoch=epoch)
        )
    approached = approach(teacher, followed, seed=context.seed)
    files = write(root / "analysis", [teacher, *followed], advice=read.advice, approach=approached)
    figures = [ref for ref in read.files if PurePosixPath(ref.path).parent.name == "figures"]
    for row in approached:
        context.say(row["sentence"])
    return DynamicsRecord(
        networks=tuple(result.label for result in (teacher, *followed)),
        files=tuple(
            sorted([*figures, *(reference(path, root) for path in files)], key=lambda ref: PurePosixPath(ref.path).name)
        ),
        approach=approached,
        missing=tuple(missing),
    )


def _weights(inputs: Inputs, root: Path) -> Iterator[tuple[int, str, dict[str, Tensor] | str]]:
    """Yield epoch, label and weights of the student in order of training; a reason instead of absent weights."""
    distill = inputs.distill
    yield 0, "student before", load_file(root / inputs.student.weights.path)
    for snapshot in distill.snapshots:
        yield snapshot.epoch, f"student epoch {snapshot.epoch}", load_snapshot(snapshot, root)
    yield distill.epochs, "student after", load_file(root / distill.weights.path)
