"""`--strategy auto`: the strategy and the compared layers, from the analysis of the teacher."""

from __future__ import annotations

from typing import Any

from vitcompress.core.analysis_records import AnalyzeRecord, Recommendation
from vitcompress.core.errors import UsageError
from vitcompress.core.records import TeacherRecord
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.resolve_features import Network, resolve_features
from vitcompress.pipeline.resolve_student import resolve_student
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm


def check_decidable(config: RunConfig, images: int) -> None:
    """Refuse, before the teacher is trained, what could not be decided afterwards.

    Args:
        config: with or without a strategy.
        images: training images.

    Raises:
        UsageError: the strategy is ``auto``, and the analysis would have too few images.
    """
    if config.student.strategy != "auto":
        return
    from vitcompress.stages.analysis.statistics import MIN_IMAGES

    read = min(config.analysis.images, images)
    if read < MIN_IMAGES:
        raise UsageError(
            f"student.strategy is 'auto', and the analysis that decides it would read {read} images "
            f"(analysis.images is {config.analysis.images}, and there are {images} to train on); it needs at least "
            f"{MIN_IMAGES}. Give more, or a strategy by name."
        )


def with_strategy(
    config: RunConfig, asked: RunConfig, analyzed: AnalyzeRecord, teacher: TeacherRecord
) -> tuple[RunConfig, list[str]]:
    """The config with what was left to the analysis decided, and the reasons in words; unchanged if nothing was.

    Args:
        config: resolved but for the strategy.
        asked: as requested; feature losses given there stay.
        analyzed: of this teacher.
        teacher: that it is of.

    Raises:
        UsageError: the analysis advises nothing.
    """
    if config.student.strategy != "auto":
        return config, []
    advice = analyzed.advice
    if advice is None or advice.strategy is None or advice.kind is None:
        why = analyzed.reason if advice is None else advice.summary
        raise UsageError(f"student.strategy is 'auto', and nothing is advised ({why}); give a strategy by name.")
    student = config.student
    args = {} if isinstance(student.args, str) else student.args
    wanted: dict[str, Any] = {"strategy": advice.strategy}
    if advice.strategy == "widelast" and advice.wide_heads is not None:
        wanted["wide_heads"] = advice.wide_heads
    decided = resolve_student(student.model_copy(update=wanted), student.model, args, teacher.width)
    reasons = [_reason(entry) for entry in advice.recommendations if entry.value]
    distill = config.distill
    if asked.distill.features == DistillConfig().features:
        term = FeatureTerm(kind=advice.kind, pairs=advice.pairs)
        student_network = Network(student.model, args, _depth(student.model, args))
        teacher_network = Network(teacher.model.arch, teacher.model.args, teacher.depth)
        distill = resolve_features(distill.model_copy(update={"features": (term,)}), student_network, teacher_network)
    else:
        reasons.append("the layer pairs advised are not used: distill.features was given")
    return config.model_copy(update={"student": decided, "distill": distill}), reasons


def _reason(entry: Recommendation) -> str:
    """What is advised and why, and how sure that is."""
    sure = "" if entry.confidence is None else f" (confidence {entry.confidence:.2f})"
    return f"{entry.what} {entry.value}{sure}: {entry.reason}"


def _depth(model: str, args: dict[str, Any]) -> int:
    from vitcompress.stages.models.geometry import shape_by_name

    return shape_by_name(model.partition(".")[0], args).depth
