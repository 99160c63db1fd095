"""Read the teacher's features before anything is trained from them; advise on strategy, layers and width."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.analysis_records import AnalyzeRecord
from vitcompress.core.context import Context
from vitcompress.core.files import reference
from vitcompress.core.network_names import split_tag
from vitcompress.core.records import DataRecord, TeacherRecord
from vitcompress.stages.analysis.advice import advise
from vitcompress.stages.analysis.network import read_network
from vitcompress.stages.analysis.sample import training_sample
from vitcompress.stages.analysis.write import MEASURES, remove, save, write
from vitcompress.stages.analyze.config import AnalyzeConfig
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import shape_by_name
from vitcompress.stages.models.weights import load_own


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord


def run(config: AnalyzeConfig, inputs: Inputs, context: Context) -> AnalyzeRecord:
    """Measure every tap of the teacher, write ``analysis/teacher/``, advise for this student.

    A ResultError is raised if a tap has values that are not finite.
    """
    folder = context.run.root / "analysis" / "teacher"
    if not config.analysis.images:
        remove(folder)
        return AnalyzeRecord(reason="analysis.images is 0")
    teacher, root = inputs.teacher, context.run.root
    sample = training_sample(inputs.data, config.analysis.images)
    network = load_own(build_model(teacher.model), teacher.weights, root)
    result = read_network(network, teacher.model, teacher.preprocess, sample, config.analysis, context, label="teacher")
    arch = split_tag(config.student)[0]
    student = shape_by_name(arch, {} if config.student_args == "auto" else config.student_args)
    advice = advise(result, student, arch, seed=context.seed)
    files = write(folder, [result], advice=advice, student=student)
    context.say(f"advice: {advice.summary}")
    return AnalyzeRecord(
        images=sample.count,
        sample=sample.words,
        measures=save(result, folder / MEASURES, root),
        files=tuple(reference(path, root) for path in files),
        advice=advice,
        forward_seconds=result.forward_seconds,
        measure_seconds=result.measure_seconds,
    )
