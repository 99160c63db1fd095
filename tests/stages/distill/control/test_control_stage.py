"""The control is the distillation's own training without the teacher, and the gain is counted image by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import distill_run
import pytest
from distill_run import config
from safetensors.torch import load_file
from small_run import distill_record, said, seeded_model

from vitcompress.core.bits import unpacked
from vitcompress.core.context import Context
from vitcompress.core.records import ControlRecord
from vitcompress.stages.distill import job
from vitcompress.stages.distill import stage as distill_stage
from vitcompress.stages.distill.control import stage
from vitcompress.stages.distill.control.config import ControlConfig, control_job, labels_alone
from vitcompress.stages.distill.control.stage import Inputs
from vitcompress.stages.judging.accuracy import paired_drop
from vitcompress.stages.models.weights import save_weights


def given(context: Context, digits_folder: Path) -> Inputs:
    found = distill_run.given(context, digits_folder)
    return Inputs(found.data, found.teacher, found.student, distill_record(found.student))


def control(inputs: Inputs, context: Context, version: int = 1, **settings: Any) -> ControlRecord:
    return stage.run(control_job(ControlConfig(kind="labels"), config(**settings), version), inputs, context)


@pytest.fixture(scope="module")
def inputs(module_context: Context, digits_folder: Path) -> Inputs:
    """Of a lift."""
    return given(module_context, digits_folder)


@pytest.fixture(scope="module")
def controlled(module_context: Context, inputs: Inputs) -> ControlRecord:
    """Its control, in the shared run. Not to be changed."""
    return control(inputs, module_context)


def test_without_a_control_nothing_is_done_and_nothing_of_the_distillation_matters(
    context: Context, digits_folder: Path
) -> None:
    inputs = given(context, digits_folder)
    jobs = [control_job(ControlConfig(), config(alpha=alpha), 1) for alpha in (0.5, 0.9)]
    assert jobs[0] == jobs[1]
    assert stage.run(jobs[0], inputs, context) == ControlRecord()
    assert not (context.run.root / "control").exists()


def test_it_is_the_same_training_as_of_the_student_alone(
    inputs: Inputs, controlled: ControlRecord, copied_context: Context
) -> None:
    given_ = job.Inputs(inputs.data, inputs.teacher, inputs.student)
    alone = distill_stage.run(config(alpha=0.0, features=()), given_, copied_context)
    assert controlled.weights is not None
    assert controlled.weights.sha256 == alone.weights.sha256
    assert (controlled.epochs, controlled.steps, controlled.chosen) == (alone.epochs, alone.steps, alone.chosen)
    assert controlled.weights.path == "control/model.safetensors"
    lines = [line for line in copied_context.run.metrics() if line["training"] == "control"]
    assert [set(line["losses"]) for line in lines] == [{"labels"}] * 2


def test_its_own_rate_takes_the_place_of_the_distillations() -> None:
    alone = labels_alone(config(), ControlConfig(lr=0.5, layer_decay=None))
    assert (alone.lr, alone.min_lr, alone.layer_decay) == (0.5, 0.005, None)


@pytest.mark.parametrize("start", ["untaught", "same"])
def test_a_student_of_the_teachers_weights_has_a_control_of_random_ones_unless_asked(
    inputs: Inputs, controlled: ControlRecord, copied_context: Context, start: Any
) -> None:
    root = copied_context.run.root
    state = {name: value * 0.5 for name, value in load_file(root / inputs.student.weights.path).items()}
    taught = save_weights(state, root / "student" / "taught.safetensors", root)
    student = inputs.student.model_copy(update={"weights": taught, "random_weights": inputs.student.weights})
    asked = control_job(ControlConfig(kind="labels", start=start), config(), 1)
    found = stage.run(asked, replace(inputs, student=student), copied_context)
    assert found.weights is not None
    assert controlled.weights is not None
    random = start == "untaught"
    assert (found.weights.sha256 == controlled.weights.sha256) == random
    assert ("the control starts from random weights" in said(copied_context)) == random
    assert (found.start, controlled.start) == ("random" if random else "same", "")


def test_the_gain_is_that_of_the_paired_interval(
    inputs: Inputs, controlled: ControlRecord, copied_context: Context
) -> None:
    found = controlled
    assert found.images == inputs.data.val_images == 30
    distilled, alone = (unpacked(bits, found.images) for bits in (found.distilled_right, found.right))
    assert (found.gain, found.gain_low, found.gain_high) == paired_drop(distilled, alone)
    assert found.val_top1 == pytest.approx(100 * alone.mean())
    assert found.distilled_top1 == pytest.approx(100 * distilled.mean())
    same = replace(inputs, distill=inputs.distill.model_copy(update={"weights": found.weights}))
    itself = control(same, copied_context)
    assert itself.gain == 0
    assert itself.right == itself.distilled_right == found.right


def test_a_changed_distillation_is_compared_again_and_the_control_not_trained_again(
    inputs: Inputs, controlled: ControlRecord, copied_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied_context.run.root
    other = save_weights(seeded_model(inputs.student.model, 11).state_dict(), root / "other.safetensors", root)
    changed = replace(inputs, distill=inputs.distill.model_copy(update={"weights": other}))

    def never(*_: Any) -> Any:
        raise AssertionError("it was trained")

    monkeypatch.setattr(stage, "train", never)
    again = control(changed, copied_context, alpha=0.3)
    assert "the control is reused" in said(copied_context)
    assert (again.weights, again.right, again.steps) == (controlled.weights, controlled.right, controlled.steps)
    assert again.distilled_right != controlled.distilled_right
    for settings in ({"lr": 2e-3}, {"version": 2}):
        with pytest.raises(AssertionError, match="it was trained"):
            control(changed, copied_context, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("damaged", ["control/trained.json", "control/model.safetensors"])
def test_what_was_left_behind_damaged_is_trained_again(context: Context, digits_folder: Path, damaged: str) -> None:
    inputs = given(context, digits_folder)
    first = control(inputs, context, epochs=1)
    with (context.run.root / damaged).open("ab") as file:
        file.write(b"x")
    again = control(inputs, context, epochs=1)
    assert "reused" not in said(context)
    assert again.right == first.right
