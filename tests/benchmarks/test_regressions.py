"""The harm that benchmarks and end-to-end tests do is the harm they say."""

from __future__ import annotations

import json

import pytest
import torch
from harm import add_block, damage_last_block
from regressions import Try, table
from small_run import distill_record, student_record

from vitcompress.core.context import Context
from vitcompress.core.records import DistillRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own


def trained(context: Context, strategy: str) -> RunDirectory:
    """A run whose student has just been trained."""
    run = context.run
    written = run.save_record("distill", distill_record(student_record(context, strategy)))
    run.mark("distill", "done", "f", settings="s", record=written, seconds=1.0)
    return run


def logits(run: RunDirectory) -> torch.Tensor:
    """Of what the run would export, by ``compress export``'s own way to it."""
    record = run.reusable("distill", "f", DistillRecord)
    assert record is not None, "the run would not take the student for a finished one"
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return load_own(build_model(record.model), record.weights, run.root).eval()(images)


@pytest.mark.parametrize("strategy", ["lift", "widelast"])
def test_an_added_block_changes_no_answer(context: Context, strategy: str) -> None:
    run = trained(context, strategy)
    before = logits(run)
    add_block(run.root, copies=2)
    assert torch.allclose(logits(run), before, atol=1e-6)
    depth = run.load_record("distill", DistillRecord).model.args["depth"]
    assert depth == 4


def test_a_damaged_block_changes_the_answers_and_no_shape(context: Context) -> None:
    run = trained(context, "lift")
    before, spec = logits(run), run.load_record("distill", DistillRecord).model
    damage_last_block(run.root)
    assert not torch.allclose(logits(run), before, atol=0.1)
    assert run.load_record("distill", DistillRecord).model == spec
    assert json.loads(run.state_path.read_text())["stages"]["distill"]["status"] == "done"


def test_the_table_counts_codes_and_names_causes() -> None:
    sound = [Try("unharmed", 0, word, 0.0, (slow, -1.0, 2.0), ()) for word, slow in (("PASS", 0.1), ("UNDECIDED", 1.9))]
    harmed = Try("extra block", 1, "FAIL", 0.0, (12.0, 10.0, 14.0), ("FAIL onnx (fp32): 12 % slower.",))
    lines = table([*sound, harmed]).splitlines()
    assert lines[2] == "| unharmed | 2 | 2 x 0, 0 x 1 | 1 x PASS, 1 x UNDECIDED | 0.1 to 1.9 | - |"
    assert lines[3] == "| extra block | 1 | 0 x 0, 1 x 1 | 1 x FAIL | 12.0 | FAIL onnx (fp32): 12 % slower. |"
