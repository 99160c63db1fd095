"""The student's snapshots through its stage: what is in them, when they stay, and what they change: nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from distill_run import config, given
from safetensors.torch import load_file

from vitcompress.core.context import Context
from vitcompress.core.files import references_in
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import DistillRecord
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.stage import Inputs
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.snapshots import load_snapshot

PROJECTED = (FeatureTerm(kind="mse", pairs=((0, 0), (1, 2)), match="projector"),)
SETTINGS = config(features=PROJECTED, keep_every=1, ema_decay=0.9)
Finished = tuple[Context, Inputs, DistillRecord]


@pytest.fixture(scope="module")
def finished(module_context: Context, digits_folder: Path) -> Finished:
    """A training of two epochs with the first one's snapshot. Not to be changed."""
    inputs = given(module_context, digits_folder, "plain")
    return module_context, inputs, stage.run(SETTINGS, inputs, module_context)


def on_disk(context: Context) -> dict[str, bytes]:
    folder = context.run.root / "student" / "snapshots"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_they_are_the_network_alone_and_load_into_it(finished: Finished) -> None:
    context, inputs, record = finished
    (snapshot,) = record.snapshots
    assert snapshot.epoch == 1
    assert {"student/snapshots/" + name for name in on_disk(context)} == {snapshot.path}
    loaded = load_snapshot(snapshot, context.run.root)
    assert isinstance(loaded, dict)
    build_model(inputs.student.model).load_state_dict(loaded, strict=True)  # no projector, which trained along
    name = "blocks.1.mlp.fc1.weight"
    initial, final = (load_file(context.run.root / ref.path)[name] for ref in (inputs.student.weights, record.weights))
    assert not torch.equal(initial, loaded[name])
    assert not torch.equal(loaded[name], final)


def test_none_are_kept_where_none_are_asked_for(finished: Finished, copy_run: Callable[[Context], Context]) -> None:
    context = copy_run(finished[0])
    record = stage.run(SETTINGS.model_copy(update={"keep_every": None}), finished[1], context)
    assert record.snapshots == ()
    assert not (context.run.root / "student" / "snapshots").exists()


def test_deleting_them_leaves_a_finished_run_finished(
    finished: Finished, copy_run: Callable[[Context], Context]
) -> None:
    record, run = finished[2], copy_run(finished[0]).run
    run.mark("distill", "done", "f", record=run.save_record("distill", record))
    assert references_in(record) == [record.weights]
    (run.root / record.snapshots[0].path).unlink()
    assert run.reusable("distill", "f", DistillRecord) == record
    (run.root / record.weights.path).unlink()
    assert run.reusable("distill", "f", DistillRecord) is None


def test_they_are_no_part_of_what_a_training_is(finished: Finished) -> None:
    """Neither the setting nor what is kept; records of earlier versions, without it, load."""
    assert fingerprint(DistillConfig(keep_every=7)) == fingerprint(DistillConfig())
    written = json.loads(finished[2].model_dump_json())
    del written["snapshots"]
    old = DistillRecord.model_validate_json(json.dumps(written))
    assert old.snapshots == ()
    assert fingerprint(old) == fingerprint(finished[2])
