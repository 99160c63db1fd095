"""Build the student as its strategy says, from the seed or a checkpoint, and write its first weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.network_names import is_own, split_tag
from vitcompress.core.records import DataRecord, Graph, ModelSpec, Strategy, StudentRecord, TeacherRecord, outputs_of
from vitcompress.stages.models.build import build_model, cost_of, preprocess_of
from vitcompress.stages.models.checkpoint import some
from vitcompress.stages.models.geometry import Shape, check_strategy, shape_by_name, wide_shapes, widened_args
from vitcompress.stages.models.initial import Fit, fit_file, fit_pretrained
from vitcompress.stages.models.own import own_network, words_of
from vitcompress.stages.models.students import network_inside
from vitcompress.stages.models.trainable import classifier_of
from vitcompress.stages.models.uniform import matching_width
from vitcompress.stages.models.weights import save_weights
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.first_weights import first_weights
from vitcompress.stages.student.start import trained_student
from vitcompress.stages.student.xavier import draw_xavier

GRAPH_OF: dict[Strategy, Graph] = {
    "plain": "plain",
    "lift": "lift-kept",
    "widelast": "widelast",
    "uniform": "plain",
}


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord


def run(config: StudentConfig, inputs: Inputs, context: Context) -> StudentRecord:
    """Build the student and write its first weights; a UsageError is raised if its strategy or weights do not fit."""
    if config.init == "auto":
        raise ValueError("the first weights were not decided")  # a mistake of ours: pipeline.config decides
    set_seed(context.seed)
    spec = student_spec(config, outputs_of(inputs.data, inputs.teacher), inputs.teacher.width)
    spec = spec.model_copy(update={"embedding": inputs.teacher.model.embedding})
    base = shape_by_name(spec.arch, {} if config.args == "auto" else config.args)
    model = build_model(spec)
    if config.init_reason:
        context.say(f"first weights: {config.init}, because {config.init_reason}")
    own, root = context.run.root / "student", context.run.root
    words = words_of(spec.arch, network_inside(model)) if is_own(spec.arch) else ""
    given: dict[str, Any] = {"source": words} if words else {}
    if words:
        context.say(f"note: the student is {words}")
    if words and spec.embedding and spec.graph == "plain":
        own_network(spec.arch, spec.args, spec.num_classes, exact=True)
    if config.init == "xavier":
        draw_xavier(model)
        given["source"] = "random weights, drawn by the width of each map"
    random = {name: value.clone() for name, value in model.state_dict().items()}
    loads = config.init in ("file", "pretrained", "run")
    initial = _load(config, spec, model, inputs.data, context) if loads else {}
    preprocess = preprocess_of(network_inside(model), spec.args, inputs.data.config["crop_pct"], inputs.data)
    if config.init == "teacher":
        initial = first_weights(model, spec, preprocess, inputs.teacher, inputs.data, context)
    if config.init in ("teacher", "run"):
        initial["random_weights"] = save_weights(random, own / "random.safetensors", root)
    if initial:
        rest = some(list(initial["not_loaded"]))
        context.say(
            ("note: " if config.init == "run" else "")
            + f"student weights: {initial['loaded']} of {len(model.state_dict())} tensors from {initial['source']}"
            + (f"; not loaded: {rest}" if rest else "")
        )
    return StudentRecord(
        model=spec,
        strategy=config.decided,
        weights=save_weights(model.state_dict(), own / "initial.safetensors", root),
        preprocess=preprocess,
        cost=cost_of(model, preprocess.size, preprocess.channels),
        width=shape_by_name(spec.arch, spec.args).width,
        depth=base.depth,
        explanation=_explanation(config.decided, spec, base),
        **{**given, **initial},
    )


def student_spec(config: StudentConfig, num_classes: int, teacher_width: int) -> ModelSpec:
    """Return the student for a teacher of this width, ``uniform_width`` decided; a UsageError if it does not fit."""
    arch = split_tag(config.model)[0]
    args = {} if config.args == "auto" else config.args
    shape = shape_by_name(arch, args)
    strategy = config.decided
    if strategy == "uniform":
        check_strategy("uniform", arch, shape, None)
        width = config.uniform_width
        if not isinstance(width, int):
            width = matching_width(arch, args, num_classes, teacher_width)
        check_strategy("uniform", arch, shape, width)
        args = widened_args(arch, args, width)
    else:
        check_strategy(strategy, arch, shape, teacher_width, config.wide_blocks, config.wide_heads)
    return ModelSpec(
        arch=arch,
        args=args,
        num_classes=num_classes,
        graph=GRAPH_OF[strategy],
        lift_width=teacher_width if strategy in ("lift", "widelast") else None,
        wide_blocks=config.wide_blocks,
        wide_heads=config.wide_heads,
    )


def _load(
    config: StudentConfig, spec: ModelSpec, model: nn.Module, data: DataRecord, context: Context
) -> dict[str, Any]:
    """Load what fits of a file, another run or timm's pretrained weights, and return fields of the record."""
    if config.init == "file" and config.weights:
        source = config.weights_reason or f"file {config.weights}"
        found = fit_file(model, Path(config.weights), spec.arch, spec.args, config.weights_key)
    elif config.init == "run":
        source = f"run {config.start} ({config.start_weights} weights)"
        found = _from_run(config, spec, model, data)
    else:
        source = f"timm pretrained {config.model}"
        context.say(f"asking for timm's pretrained weights of {config.model}")
        found, preprocessing = fit_pretrained(model, config.model, spec.args)
        network = network_inside(model)
        network.pretrained_cfg = {**network.pretrained_cfg, **preprocessing}  # of the tag, not of the default one
    model.load_state_dict(found.values, strict=False)
    source = "; ".join((source, *found.told))
    return {"source": source, "loaded": len(found.values), "not_loaded": found.not_loaded}


def _from_run(config: StudentConfig, spec: ModelSpec, model: nn.Module, data: DataRecord) -> Fit:
    """Return what fits of another run's student, less a classifier of other classes."""
    root, ref, theirs = trained_student(config)
    found = fit_file(model, root / ref.path, spec.arch, spec.args)
    if data.task == theirs.task and (data.task == "embedding" or data.classes == theirs.classes):
        return found
    heads = tuple(f"{name}." for name in classifier_of(model))
    kept = {name: value for name, value in found.values.items() if not name.startswith(heads)}
    foreign = tuple(f"{name}: of other classes" for name in found.values if name not in kept)
    return replace(found, values=kept, not_loaded=(*foreign, *found.not_loaded))


def _explanation(strategy: Strategy, spec: ModelSpec, base: Shape) -> str:
    """Say how the strategy changes the architecture of shape ``base``."""
    wide, own = spec.lift_width, f"{base.width}x{base.heads}h"
    if strategy == "lift":
        read = "patch tokens" if base.isotropic else "map before pooling"
        return f"{spec.name} of width {base.width}, its last {read} projected to {wide} before the head"
    if strategy == "widelast" and wide is not None:
        shapes = wide_shapes(spec.arch, base, wide, spec.wide_blocks, spec.wide_heads)
        at = ", ".join(f"{width}x{heads}h" for width, heads in shapes)
        which = "block" if len(shapes) == 1 else f"{len(shapes)} blocks"
        return f"{spec.name} of {own}, its last {which} at {at}, its norm and head at {wide}"
    if strategy == "uniform":
        width = shape_by_name(spec.arch, spec.args).width
        return f"{spec.name}, all its blocks at {width}x{base.heads}h instead of {own}"
    return f"{spec.name} unchanged, width {base.width}"
