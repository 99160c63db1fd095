"""Build the student as its strategy says, from the seed, and write its first weights."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate.utils import set_seed

from core.context import Context
from core.records import DataRecord, Graph, ModelSpec, Strategy, StudentRecord, TeacherRecord
from stages.models.build import build_model, cost_of, preprocess_of
from stages.models.geometry import shape_by_name
from stages.models.weights import save_weights
from stages.student.config import StudentConfig

GRAPH_OF: dict[Strategy, Graph] = {"plain": "plain", "lift": "lift-kept", "widelast": "widelast"}


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord


def run(config: StudentConfig, inputs: Inputs, context: Context) -> StudentRecord:
    """The student with its initial weights.

    Raises:
        UsageError: the strategy does not fit the architecture.
    """
    set_seed(context.seed)
    args = {} if config.args == "auto" else config.args
    base = shape_by_name(config.model, args)
    wide = inputs.teacher.width
    spec = ModelSpec(
        arch=config.model,
        args=args,
        num_classes=len(inputs.data.classes),
        graph=GRAPH_OF[config.strategy],
        lift_width=None if config.strategy == "plain" else wide,
    )
    model = build_model(spec)
    crop_pct = inputs.data.config["crop_pct"]
    preprocess = preprocess_of(model.base.vit if config.strategy == "lift" else model, args, crop_pct)  # type: ignore[union-attr, arg-type]
    explanation = {
        "plain": f"{config.model} unchanged, width {base.width}",
        "lift": f"{config.model} of width {base.width}, its last patch tokens projected to {wide} before the head",
        "widelast": f"{config.model} of width {base.width}, its last block, norm and head at {wide}",
    }[config.strategy]
    return StudentRecord(
        model=spec,
        strategy=config.strategy,
        weights=save_weights(
            model.state_dict(), context.run.root / "student" / "initial.safetensors", context.run.root
        ),
        preprocess=preprocess,
        cost=cost_of(model, preprocess.size),
        width=base.width,
        depth=base.depth,
        explanation=explanation,
    )
