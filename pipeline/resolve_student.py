"""What the student's settings come to, and which of them cannot go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig


def resolve_student(
    config: StudentConfig, model: str, args: dict[str, Any], teacher_width: int, *, fetch: bool = True
) -> StudentConfig:
    """Name and arguments decided; strategy and first weights checked by building the network without its weights.

    What ``uniform_width: auto`` is waits for the number of classes (``pipeline.resolve.resolve_training``). Without
    ``fetch``, pretrained weights are taken to fit.

    Raises:
        UsageError: settings of another strategy, a strategy that does not fit, or weights that do not.
    """
    import torch

    from vitcompress.stages.models.build import build_model
    from vitcompress.stages.models.initial import fit_file, fit_pretrained
    from vitcompress.stages.student.stage import student_spec

    _refuse_other_strategies(config)
    _check_init(config, model)
    width = None if config.strategy != "uniform" else "auto" if config.uniform_width is None else config.uniform_width
    resolved = config.model_copy(update={"model": model, "args": args, "uniform_width": width})
    # Undecided, the unchanged network stands for it: it must be one that can be built and given these weights.
    settled = resolved.model_copy(update={"strategy": "plain"}) if config.strategy == "auto" else resolved
    spec = student_spec(settled, 1000, teacher_width)
    with torch.device("meta"):
        network = build_model(spec)
    if config.weights is not None:
        fit_file(network, Path(config.weights), spec.arch, spec.args, config.weights_key)
    elif config.init == "pretrained" and fetch:
        fit_pretrained(network, model, spec.args)  # fetched now, and from the cache when the student is made
    return resolved


def resolve_width(config: StudentConfig, classes: int, teacher: TeacherConfig) -> StudentConfig:
    """``uniform_width: auto`` decided for this many classes."""
    if config.strategy != "uniform" or isinstance(config.uniform_width, int):
        return config
    from vitcompress.stages.models.geometry import shape_by_name
    from vitcompress.stages.student.stage import student_spec

    teacher_args = {} if isinstance(teacher.args, str) else teacher.args
    teacher_width = shape_by_name(teacher.model.partition(".")[0], teacher_args).width
    width = student_spec(config, classes, teacher_width).args["embed_dim"]
    return config.model_copy(update={"uniform_width": width})


def _refuse_other_strategies(config: StudentConfig) -> None:
    """A setting that the strategy does not read is a mistake."""
    settings = {
        "uniform_width": ("uniform", isinstance(config.uniform_width, int)),
        "wide_blocks": ("widelast", config.wide_blocks != 1),
        "wide_heads": ("widelast", config.wide_heads != "size"),
    }
    for name, (strategy, given) in settings.items():
        if given and config.strategy != strategy:
            raise UsageError(
                f"student.{name} is {getattr(config, name)}, but student.strategy is '{config.strategy}', which does "
                f"not read it; use --strategy {strategy}, or leave it out."
            )


def _check_init(config: StudentConfig, model: str) -> None:
    arch, _, tag = model.partition(".")
    if (config.init == "file") != (config.weights is not None):
        raise UsageError(
            f"student.init is '{config.init}' and student.weights is {config.weights!r}; give both init=file and a "
            "file, or neither."
        )
    if tag and config.init != "pretrained":
        start = {"random": "random weights", "teacher": "the teacher's"}.get(config.init, "those of a file")
        raise UsageError(
            f"student '{model}' names pretrained weights, but student.init is '{config.init}', so it starts from "
            f"{start}; give --student {arch}, or --set student.init=pretrained."
        )
    if config.init == "pretrained":
        import timm

        if not timm.is_model_pretrained(model):
            raise UsageError(
                f"student.init is 'pretrained', but timm has no pretrained weights of {model}; use student.init=random."
            )
