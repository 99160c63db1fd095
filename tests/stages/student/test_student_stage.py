from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_run import STUDENT, STUDENT_ARGS, data_record, teacher_record

from core.context import Context
from core.errors import UsageError
from core.files import is_intact
from stages.models.build import build_model, cost_of
from stages.student.config import StudentConfig
from stages.student.stage import Inputs, run


@pytest.fixture
def inputs(digits_folder: Path, context: Context) -> Inputs:
    return Inputs(data=data_record(str(digits_folder), context), teacher=teacher_record(context))


def config(strategy: str = "lift", **changes) -> StudentConfig:
    return StudentConfig(**{"model": STUDENT, "strategy": strategy, "args": STUDENT_ARGS, **changes})


@pytest.mark.parametrize(
    ("strategy", "graph", "words"),
    [
        ("plain", "plain", "unchanged, width 24"),
        ("lift", "lift-kept", "of width 24, its last patch tokens projected to 48 before the head"),
        ("widelast", "widelast", "of 24x3h, its last block at 48x6h, its norm and head at 48"),
    ],
)
def test_the_student_is_built_as_its_strategy_says(
    inputs: Inputs, context: Context, strategy: str, graph: str, words: str
) -> None:
    record = run(config(strategy), inputs, context)
    assert (record.strategy, record.model.graph) == (strategy, graph)
    assert record.model.lift_width == (None if strategy == "plain" else 48)
    assert (record.width, record.depth, record.model.num_classes) == (24, 2, 10)
    assert record.explanation == f"{STUDENT} {words}"
    assert is_intact(record.weights, context.run.root)
    model = build_model(record.model)
    model.load_state_dict(load_file(context.run.root / record.weights.path))
    assert record.cost == cost_of(model, 32)
    assert record.preprocess.size == 32
    assert record.preprocess.crop_pct == 0.9  # DeiT's own


def test_the_seed_decides_the_weights(inputs: Inputs, context: Context) -> None:
    found = [run(config(), inputs, replace(context, seed=seed)).weights.sha256 for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_datas_crop_goes_before_the_models(inputs: Inputs, context: Context) -> None:
    settings = {**inputs.data.config, "crop_pct": 1.0}
    inputs = replace(inputs, data=inputs.data.model_copy(update={"config": settings}))
    assert run(config(), inputs, context).preprocess.crop_pct == 1.0


def test_what_does_not_fit_is_refused(inputs: Inputs, context: Context) -> None:
    teacher = inputs.teacher.model_copy(update={"width": 50})
    with pytest.raises(UsageError, match=r"head size of .*, 8, but the teacher's width 50"):
        run(config("widelast"), replace(inputs, teacher=teacher), context)
    with pytest.raises(UsageError, match="needs a student of equal blocks"):
        run(config("lift", model="swin_tiny_patch4_window7_224", args={}), inputs, context)
    assert not (context.run.root / "student").exists()
