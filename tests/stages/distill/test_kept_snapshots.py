"""The student's snapshots through its stage: what is in them, when they stay, and what they change: nothing."""

from __future__ import annotations

import json
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


@pytest.fixture(scope="module")
def inputs(module_context: Context, digits_folder: Path) -> Inputs:
    return given(module_context, digits_folder, "plain")


@pytest.fixture(scope="module")
def record(module_context: Context, inputs: Inputs) -> DistillRecord:
    """Of a training of two epochs with the first one's snapshot. Not to be changed."""
    return stage.run(SETTINGS, inputs, module_context)


def test_they_are_the_network_alone_and_load_into_it(
    module_context: Context, inputs: Inputs, record: DistillRecord
) -> None:
    root = module_context.run.root
    (snapshot,) = record.snapshots
    assert snapshot.epoch == 1
    assert [path for path in (root / "student" / "snapshots").rglob("*") if path.is_file()] == [root / snapshot.path]
    loaded = load_snapshot(snapshot, root)
    assert isinstance(loaded, dict)
    build_model(inputs.student.model).load_state_dict(loaded, strict=True)  # no projector, which trained along
    name = "blocks.1.mlp.fc1.weight"
    initial, final = (load_file(root / ref.path)[name] for ref in (inputs.student.weights, record.weights))
    assert not torch.equal(initial, loaded[name])
    assert not torch.equal(loaded[name], final)


@pytest.mark.usefixtures("record")
def test_none_are_kept_where_none_are_asked_for(inputs: Inputs, copied_context: Context) -> None:
    again = stage.run(SETTINGS.model_copy(update={"keep_every": None}), inputs, copied_context)
    assert again.snapshots == ()
    assert not (copied_context.run.root / "student" / "snapshots").exists()


def test_deleting_them_leaves_a_finished_run_finished(record: DistillRecord, copied_context: Context) -> None:
    run = copied_context.run
    run.mark("distill", "done", "f", record=run.save_record("distill", record))
    assert references_in(record) == [record.weights]
    (run.root / record.snapshots[0].path).unlink()
    assert run.reusable("distill", "f", DistillRecord) == record
    (run.root / record.weights.path).unlink()
    assert run.reusable("distill", "f", DistillRecord) is None


def test_they_are_no_part_of_what_a_training_is(record: DistillRecord) -> None:
    """Neither the setting nor what is kept; records of earlier versions, without it, load."""
    assert fingerprint(DistillConfig(keep_every=7)) == fingerprint(DistillConfig())
    written = json.loads(record.model_dump_json())
    del written["snapshots"]
    old = DistillRecord.model_validate_json(json.dumps(written))
    assert old.snapshots == ()
    assert fingerprint(old) == fingerprint(record)
