"""Decide the student's first weights and what the analysis of the teacher advises; check that it can be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import is_own
from vitcompress.core.records import ModelSpec
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm

_PATIENCE = 4.0
"""Seconds that the hub has to answer."""


def first_weights(config: RunConfig, facts: Facts) -> Choice:
    """Decide ``student.init``: a file, timm's pretrained weights, the teacher's own, or random ones."""
    student = facts.network("student", config)
    if config.student.weights is not None:
        return Choice("file", "student.weights names one")
    if config.student.start is not None:
        return Choice("run", "student.start (--from) names one")
    if is_own(student.name):
        return Choice("random", "its function gives them")
    if "." in student.name:
        return Choice("pretrained", f"the tag of {student.name} names them")
    if config.geometry == "reduced":
        return Choice("random", "networks as small as these are trained here")
    missing = _no_pretrained(config, facts)
    if not missing:
        return Choice("pretrained", "timm has them for this network, and they can be had from here")
    unlike = _unlike_teacher(config, facts)
    if not unlike:
        return Choice("teacher", f"{missing}; the teacher's blocks fit")
    return Choice("random", f"{missing}; nor can the teacher's be taken: {unlike}")


def _no_pretrained(config: RunConfig, facts: Facts) -> str:
    """Return why timm's pretrained weights cannot be used, in words; empty where they can."""
    import timm

    from vitcompress.stages.models.build import pretrained_model
    from vitcompress.stages.models.geometry import shape_by_name

    student = facts.network("student", config)
    arch = student.arch
    if not timm.is_model_pretrained(arch):
        return f"timm has no pretrained weights of {arch}"
    if student.shape != shape_by_name(arch, {}) or config.student.strategy == "uniform":
        return f"timm's pretrained weights of {arch} are for another width or depth"
    why = unreachable(arch)
    if not why and facts.fetch:
        try:  # into the cache, from which the student is made later
            pretrained_model(arch, ModelSpec(arch=arch, args={}, num_classes=0))
        except (OSError, RuntimeError) as error:
            why = type(error).__name__
    return f"no pretrained weights of {arch} can be had from here ({why})" if why else ""


def unreachable(arch: str) -> str:
    """Return why the pretrained weights of a timm architecture cannot be had, in words; empty where it seems they can.

    Looks into the local cache, then asks the hub for the size of the file, once and for a few seconds. With
    HF_HUB_OFFLINE nothing is asked.
    """
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    config = timm.get_pretrained_cfg(arch)
    if config is None or not config.hf_hub_id:
        return "they are not on the Hugging Face hub"
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    repository, _, tag = config.hf_hub_id.partition("@")
    revision = tag or None
    if any(isinstance(try_to_load_from_cache(repository, name, revision=revision), str) for name in names):
        return ""
    if is_offline_mode():
        return "not in the local cache, and HF_HUB_OFFLINE is set"
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=_PATIENCE)
        except EntryNotFoundError:
            continue
        except Exception as error:  # whatever the HTTP library of this version raises: the answer is no
            return f"not in the local cache, and asking the hub ended with {type(error).__name__}"
        return ""
    return "the hub has no such file"


def _unlike_teacher(config: RunConfig, facts: Facts) -> str:
    """Return why the student cannot inherit from the teacher, in words; empty where it can."""
    from vitcompress.stages.models.geometry import widened_args
    from vitcompress.stages.models.inherit.inherit import why_not

    teacher, student = facts.network("teacher", config), facts.network("student", config)
    width = config.student.uniform_width
    args = student.args
    if config.student.strategy == "uniform" and isinstance(width, int):
        args = widened_args(student.arch, args, width)
    return why_not((teacher.arch, teacher.args), (student.arch, args))


def check_inheriting(config: RunConfig, facts: Facts) -> None:
    """Refuse, by a UsageError, first weights from a teacher whose family does not fit."""
    reason = _unlike_teacher(config, facts) if config.student.init == "teacher" else ""
    if reason:
        raise UsageError(
            f"student.init is 'teacher', but {reason}; use --set student.init=random, or auto for whatever fits."
        )


def uniform_width(config: RunConfig, facts: Facts) -> Choice:
    """Decide the width of a uniform student; it waits for the number of classes, and other strategies have none."""
    from vitcompress.stages.models.embedding import projection_of
    from vitcompress.stages.models.geometry import shape_by_name
    from vitcompress.stages.student.stage import student_spec

    asked = config.student.uniform_width
    if config.student.strategy != "uniform":
        return Choice(None)
    if isinstance(asked, int) or facts.data is None:
        return Choice("auto" if asked is None else asked)
    teacher = facts.network("teacher", config).shape.width
    outputs = len(facts.data.classes)
    if config.data.task == "embedding":
        outputs = projection_of(config.teacher.model) or teacher
    spec = student_spec(config.student, outputs, teacher)
    width = shape_by_name(spec.arch, spec.args).width
    return Choice(width, "as many parameters as a widelast student of this teacher, or just above")


def check_student(config: RunConfig, facts: Facts) -> None:
    """Build the student without its weights; a UsageError is raised if its strategy does not fit the network.

    Undecided, the unchanged network stands for it: it must be one that can be built and given the first weights.
    """
    _student_on_meta(config, facts)


def check_first_weights(config: RunConfig, facts: Facts) -> None:
    """Look into the student's file, or fetch timm's weights; a UsageError is raised if there are none that fit."""
    import timm

    from vitcompress.stages.models.initial import fit_file, fit_pretrained
    from vitcompress.stages.student.start import trained_student

    student = config.student
    if student.init == "pretrained" and not timm.is_model_pretrained(student.model):
        raise UsageError(
            f"student.init is 'pretrained', but timm has no pretrained weights of {student.model}; use "
            "student.init=random."
        )
    if student.weights is None and student.init != "run" and not (student.init == "pretrained" and facts.fetch):
        return
    network, spec = _student_on_meta(config, facts)
    if student.init == "run":
        root, ref, _ = trained_student(student)
        fit_file(network, root / ref.path, spec.arch, spec.args)
    elif student.weights is not None:
        fit_file(network, Path(student.weights), spec.arch, spec.args, student.weights_key)
    else:
        fit_pretrained(network, student.model, spec.args)


def _student_on_meta(config: RunConfig, facts: Facts) -> tuple[Any, ModelSpec]:
    import torch

    from vitcompress.stages.models.build import build_model
    from vitcompress.stages.student.stage import student_spec

    undecided = config.student.strategy == "auto"
    student = config.student.model_copy(update={"strategy": "plain"}) if undecided else config.student
    spec = student_spec(student, 1000, facts.network("teacher", config).shape.width)
    with torch.device("meta"):
        return build_model(spec), spec


def check_optimizer(section: str, config: RunConfig, facts: Facts) -> None:
    """Refuse, by a UsageError, an optimizer of the section that timm has not, or that cannot be made as it is given."""
    training = getattr(config, section)
    if training.identity().keys() & {"optimizer", "betas", "eps", "momentum", "optimizer_args"}:
        from vitcompress.stages.training.optimizer import try_optimizer

        try:
            try_optimizer(training)
        except UsageError as error:
            raise UsageError(f"{section}.{error}") from error


def check_parts(section: str, config: RunConfig, facts: Facts) -> None:
    """Refuse, by a UsageError, what the network of the section cannot freeze or compute again."""
    from vitcompress.stages.distill.model import prepare_student
    from vitcompress.stages.distill.pairs import layer_pairs, student_layers
    from vitcompress.stages.models.build import input_size
    from vitcompress.stages.models.geometry import meta_model
    from vitcompress.stages.models.students import network_inside
    from vitcompress.stages.models.trainable import prepare

    if not (getattr(config, section).freeze or getattr(config, section).grad_checkpointing):
        return
    teacher, student = facts.network("teacher", config), facts.network("student", config)
    if section == "teacher":
        return prepare(meta_model(teacher.arch, teacher.args), config.teacher, "teacher")
    network, spec = _student_on_meta(config, facts)
    layers = student_layers(layer_pairs(config.distill, student.shape.depth, teacher.shape.depth))
    size = input_size(spec.args, network_inside(network))
    prepare_student(network, config.distill, layers, size, int(spec.args.get("in_chans", 3)))


def strategy(config: RunConfig, facts: Facts) -> Choice:
    """Decide the strategy as the analysis of the teacher advises; a UsageError is raised if it advises nothing."""
    advice = facts.analysis.advice if facts.analysis else None
    if advice is None or advice.strategy is None or advice.kind is None:
        why = (facts.analysis.reason if facts.analysis else "") if advice is None else advice.summary
        raise UsageError(f"student.strategy is 'auto', and nothing is advised ({why}); give a strategy by name.")
    reasons = []
    for entry in advice.recommendations:
        sure = "" if entry.confidence is None else f" (confidence {entry.confidence:.2f})"
        reasons += [f"{entry.what} {entry.value}{sure}: {entry.reason}"] if entry.value else []
    return Choice(advice.strategy, "\n".join(reasons))


def wide_heads(config: RunConfig, facts: Facts) -> Choice | None:
    """Decide what a widened block keeps, as advised."""
    advice = facts.analysis.advice if facts.analysis else None
    if config.student.strategy != "widelast" or advice is None or advice.wide_heads is None:
        return None
    return Choice(advice.wide_heads)


def advised_features(config: RunConfig, facts: Facts) -> Choice | None:
    """Decide the compared layers as advised, unless others were asked for."""
    advice = facts.analysis.advice if facts.analysis else None
    if advice is None or advice.kind is None:
        return None
    if facts.asked.distill.features != DistillConfig().features:
        return Choice(
            config.distill.features, "the layer pairs advised are not used: distill.features was given", "as given"
        )
    return Choice((FeatureTerm(kind=advice.kind, pairs=advice.pairs),), shown="as advised")
