"""The student's snapshots through its stage: what is in them, when they stay, and what they change: nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from small_run import SETTLED, data_record, student_record, teacher_record

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.core.files import references_in
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import DistillRecord
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.stage import Inputs
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.snapshots import load_snapshot
from vitcompress.stages.training.interrupt import StopRequest

PROJECTED = FeatureTerm(kind="mse", pairs=((0, 0), (1, 2)), match="projector")


def config(**changes: Any) -> DistillConfig:
    values: dict[str, Any] = {
        **SETTLED,
        "epochs": 3,
        "batch_size": 40,
        "lr": 1e-3,
        "min_lr": 1e-5,
        "warmup_epochs": 0.0,
        "ema_decay": 0.9,
        "features": (PROJECTED,),
        "keep_every": 1,
    }
    return DistillConfig(**{**values, **changes})


@pytest.fixture
def inputs(digits_folder: Path, context: Context) -> Inputs:
    return Inputs(data_record(str(digits_folder), context), teacher_record(context), student_record(context, "plain"))


@pytest.fixture(scope="module")
def finished(module_context: Context, digits_folder: Path) -> tuple[Context, Inputs, DistillRecord]:
    """A training of two epochs with the first one's snapshot. Not to be changed."""
    data, teacher = data_record(str(digits_folder), module_context), teacher_record(module_context)
    given = Inputs(data, teacher, student_record(module_context, "plain"))
    return module_context, given, stage.run(config(epochs=2), given, module_context)


def on_disk(context: Context) -> dict[str, bytes]:
    folder = context.run.root / "student" / "snapshots"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(context: Context) -> str:
    file: Any = context.console.file
    return str(file.getvalue())


def test_they_are_the_network_alone_and_load_into_it(inputs: Inputs, context: Context) -> None:
    record = stage.run(config(), inputs, context)
    assert [snapshot.epoch for snapshot in record.snapshots] == [1, 2]
    assert {"student/snapshots/" + name for name in on_disk(context)} == {one.path for one in record.snapshots}
    initial, final = (load_file(context.run.root / ref.path) for ref in (inputs.student.weights, record.weights))
    states = []
    for snapshot in record.snapshots:
        loaded = load_snapshot(snapshot, context.run.root)
        assert loaded.state is not None
        assert loaded.state.keys() == initial.keys()  # no projector, which trained along
        build_model(inputs.student.model).load_state_dict(loaded.state, strict=True)
        states.append(loaded.state)
    name = "blocks.1.mlp.fc1.weight"
    stages = [initial, *states, final]
    assert not any(torch.equal(one[name], other[name]) for i, one in enumerate(stages) for other in stages[:i])
    assert "no snapshot" not in said(context)


def test_stopped_after_every_step_and_resumed_they_are_the_same_bytes(
    finished: tuple[Context, Inputs, DistillRecord],
    copy_run: Callable[[Context], Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, inputs, whole = finished
    context = copy_run(shared)
    wanted = on_disk(context)
    for one in whole.snapshots:
        (context.run.root / one.path).unlink()
    assert not (context.run.root / "checkpoints").exists()  # it took no minute: what follows starts again
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "requested", True)  # at once, in every attempt
        for _ in range(2 * (2 + 1)):  # after each batch of each epoch, and after the epoch
            with pytest.raises(RunInterrupted):
                stage.run(config(epochs=2), inputs, context)
    again = stage.run(config(epochs=2), inputs, context)
    assert again.steps == whole.steps == 4
    assert on_disk(context) == wanted
    assert (again.snapshots, again.weights) == (whole.snapshots, whole.weights)


def test_none_are_kept_where_none_are_asked_for(
    finished: tuple[Context, Inputs, DistillRecord], copy_run: Callable[[Context], Context]
) -> None:
    shared, inputs, _ = finished
    context = copy_run(shared)
    assert len(on_disk(context)) == 1
    record = stage.run(config(epochs=2, keep_every=None), inputs, context)
    assert (record.snapshots, on_disk(context)) == ((), {})
    assert not (context.run.root / "student" / "snapshots").exists()


def test_what_was_deleted_before_the_end_is_said(inputs: Inputs, context: Context) -> None:
    settings = config(checkpoint_seconds=0.0)
    record = stage.run(settings, inputs, context)
    (context.run.root / record.snapshots[0].path).unlink()
    (context.run.root / record.weights.path).unlink()  # so that the stage is carried out again, from its checkpoint
    again = stage.run(settings, inputs, context)
    assert again.snapshots == record.snapshots[1:]
    assert "no snapshot on disk of epoch 1: deleted, or asked for only later" in said(context)


def test_deleting_them_leaves_a_finished_run_finished(
    finished: tuple[Context, Inputs, DistillRecord], copy_run: Callable[[Context], Context]
) -> None:
    shared, _, record = finished
    run = copy_run(shared).run
    run.mark("distill", "done", "f", record=run.save_record("distill", record))
    assert references_in(record) == [record.weights]
    (run.root / record.snapshots[0].path).unlink()
    assert run.reusable("distill", "f", DistillRecord) == record
    (run.root / record.weights.path).unlink()
    assert run.reusable("distill", "f", DistillRecord) is None


def test_records_of_earlier_versions_load_and_count_the_same(finished: tuple[Context, Inputs, DistillRecord]) -> None:
    record = finished[2]
    assert len(record.snapshots) == 1
    written = json.loads(record.model_dump_json())
    assert DistillRecord.model_validate_json(json.dumps(written)) == record
    del written["snapshots"]
    old = DistillRecord.model_validate_json(json.dumps(written))
    assert old.snapshots == ()
    assert fingerprint(old) == fingerprint(record)  # what follows is not done again


@pytest.mark.parametrize("every", [1, 7, "auto", None])
def test_keeping_is_no_part_of_what_a_training_is(every: Any) -> None:
    plain = {name: value for name, value in DistillConfig().model_dump().items() if name != "keep_every"}
    without = DistillConfig().identity()
    assert "keep_every" not in without
    assert fingerprint(DistillConfig(keep_every=every)) == fingerprint(DistillConfig()) == fingerprint(without)
    assert {
        "checkpoint_seconds",
        "compile_reason",
        "precision_reason",
        "timeout_minutes",
    } == plain.keys() - without.keys() - {"cache"}


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "often"])
def test_intervals_that_cannot_be_are_refused(every: Any) -> None:
    with pytest.raises(ValidationError, match="keep_every"):
        DistillConfig(keep_every=every)


def test_an_interval_nobody_resolved_is_a_mistake_of_ours(inputs: Inputs, context: Context) -> None:
    with pytest.raises(ValueError, match="distill was not resolved"):
        stage.run(config(keep_every="auto"), inputs, context)
