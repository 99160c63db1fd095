"""Networks and records small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import DataRecord, DistillRecord, FoldRecord, ModelSpec, StudentRecord, TeacherRecord
from vitcompress.stages.data import stage as data_stage
from vitcompress.stages.fold import stage as fold_stage
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.models.weights import save_weights

STUDENT = "deit_tiny_patch16_224"
STUDENT_ARGS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
TEACHER = "vit_tiny_patch16_224"
TEACHER_ARGS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4}
HALF = (0.5, 0.5, 0.5)
SPEC = PreprocessSpec(size=32, mean=HALF, std=HALF)
NO_AUGMENT = AugmentConfig(crop_scale=(1.0, 1.0), hflip=0.0, auto_augment=None, color_jitter=0.0, random_erasing=0.0)
LIGHT_AUGMENT = AugmentConfig(
    crop_scale=(0.7, 1.0), hflip=0.0, auto_augment=None, color_jitter=0.4, random_erasing=0.25
)
STRONG_AUGMENT = AugmentConfig(
    crop_scale=(0.08, 1.0), auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, random_erasing=0.25
)
SETTLED: dict[str, Any] = {"layer_decay": None, "ema_decay": 0.9999, "augment": LIGHT_AUGMENT}
"""Settings of a training that ``pipeline.config.training`` decides in a run."""


def student_spec(graph: str, classes: int = 10, width: int = 48) -> ModelSpec:
    lift = None if graph == "plain" else width
    return ModelSpec(arch=STUDENT, args=STUDENT_ARGS, num_classes=classes, graph=graph, lift_width=lift)  # type: ignore[arg-type]


def seeded_model(spec: ModelSpec, seed: int = 0) -> nn.Module:
    """The network with every parameter random, those that start at zero or one included."""
    torch.manual_seed(seed)
    model = build_model(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def data_record(source: str, context: Context) -> DataRecord:
    config = DataConfig(source=source, augment=LIGHT_AUGMENT)
    return data_stage.run(config, data_stage.Inputs(), context)


def teacher_record(context: Context, model: nn.Module | None = None, **changes: Any) -> TeacherRecord:
    """A teacher as its stage would have left it; ``model`` replaces the random weights."""
    spec = ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=10)
    model = model or seeded_model(spec, 7)
    root = context.run.root
    values: dict[str, Any] = {
        "model": spec,
        "weights": save_weights(model.state_dict(), root / "teacher" / "model.safetensors", root),
        "preprocess": SPEC,
        "source": "a test",
        "epochs": 0,
        "cost": cost_of(model, 32),
        "width": 48,
        "depth": 3,
        "val_top1": 10.0,
    }
    return TeacherRecord(**{**values, **changes})


def student_record(context: Context, strategy: str = "lift") -> StudentRecord:
    spec = student_spec({"lift": "lift-kept"}.get(strategy, strategy))
    model, root = seeded_model(spec, 3), context.run.root
    return StudentRecord(
        model=spec,
        strategy=strategy,  # type: ignore[arg-type]
        weights=save_weights(model.state_dict(), root / "student" / "initial.safetensors", root),
        preprocess=SPEC,
        cost=cost_of(model, 32),
        width=24,
        depth=2,
        explanation="a test",
    )


def said(context: Context) -> str:
    """What a stage has said so far."""
    file: Any = context.console.file
    return str(file.getvalue())


def distill_record(student: StudentRecord) -> DistillRecord:
    """A training that left the student as it was."""
    return DistillRecord(
        model=student.model,
        weights=student.weights,
        chosen="raw",
        val_top1_raw=0.0,
        val_top1_ema=None,
        epochs=1,
        steps=1,
        seconds=0.0,
        losses={},
    )


def folded_run(
    context: Context, digits: Path, strategy: str
) -> tuple[DataRecord, TeacherRecord, StudentRecord, DistillRecord, FoldRecord]:
    """Records of a run up to its fold, as the stages after it take them; nothing is trained."""
    data, teacher = data_record(str(digits), context), teacher_record(context)
    student = student_record(context, strategy)
    distill = distill_record(student)
    fold = fold_stage.run(FoldConfig(images=4), fold_stage.Inputs(data, student, distill), context)
    return data, teacher, student, distill, fold
