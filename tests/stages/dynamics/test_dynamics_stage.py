"""The student before, at its snapshots and after, on the images that the teacher was read on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_run import STUDENT, STUDENT_ARGS, data_record, distill_record, seeded_model, student_record, teacher_record

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.core.context import Context
from vitcompress.core.files import is_intact
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analyze import stage as analyze_stage
from vitcompress.stages.analyze.config import AnalyzeConfig
from vitcompress.stages.dynamics.stage import Inputs, run
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.models.weights import save_weights

READ = 60
EPOCHS = 6


def inputs(context: Context, images: int = READ) -> Inputs:
    """A run whose student went from its first weights, over two snapshots, to others."""
    data, teacher, student = (
        data_record("digits", context),
        teacher_record(context),
        student_record(context, "lift"),
    )
    root = context.run.root
    snapshots = Snapshots(root, context.fingerprint, EPOCHS, 2)
    for epoch in snapshots.due:
        snapshots.keep(epoch, seeded_model(student.model, 10 + epoch).state_dict())
    trained = save_weights(seeded_model(student.model, 99).state_dict(), root / "student" / "model.safetensors", root)
    changes = {"weights": trained, "epochs": EPOCHS, "snapshots": snapshots.finish()}
    distill = distill_record(student).model_copy(update=changes)
    config = AnalyzeConfig(
        analysis=AnalysisConfig(images=images, memory_mb=50), student=STUDENT, student_args=STUDENT_ARGS
    )
    analyze = analyze_stage.run(config, analyze_stage.Inputs(data, teacher), context)
    return Inputs(data, teacher, analyze, student, distill)


def watched(context: Context, given: Inputs) -> tuple[DynamicsRecord, dict[str, Any]]:
    record = run(AnalysisConfig(images=READ, memory_mb=50), given, context)
    return record, json.loads((context.run.root / "analysis" / "analysis.json").read_text())


@pytest.mark.usefixtures("quick_figures")
def test_every_stage_of_training_is_read(context: Context) -> None:
    record, document = watched(context, inputs(context))
    labels = ["teacher", "student before", "student epoch 2", "student epoch 4", "student after"]
    assert list(record.networks) == labels == [network["label"] for network in document["networks"]]
    assert [network["epoch"] for network in document["networks"]] == [None, 0, 2, 4, EPOCHS]
    assert {network["sample"] for network in document["networks"]} == {document["networks"][0]["sample"]}
    assert document["networks"][-1]["taps"][-1]["width"] == 48  # the lifted tap has the teacher's width
    assert all(is_intact(ref, context.run.root) for ref in record.files)
    figures = [ref.path for ref in record.files if "/figures/" in ref.path]
    assert figures == [  # by name; the teacher's own were drawn by `analyze`
        "analysis/figures/over-training.png",
        "analysis/figures/rank-student-after.png",
        "analysis/teacher/figures/rank-teacher.png",
    ]
    assert {row["quantity"] for row in record.approach} == {"rank95", "entropy", "log10 magnitude", "intensity"}
    assert all(len(row["distances"]) == 4 and row["verdict"] for row in record.approach)


@pytest.mark.usefixtures("quick_figures")
def test_a_snapshot_that_is_gone_is_said_and_left_out(context: Context) -> None:
    given = inputs(context)
    (context.run.root / given.distill.snapshots[0].path).unlink()
    record, _ = watched(context, given)
    assert "student epoch 2" not in record.networks
    (missing,) = record.missing
    assert "epoch 2" in missing
    assert f"left out: {missing}" in context.console.file.getvalue()  # type: ignore[attr-defined]


def test_without_an_analysis_of_the_teacher_there_is_none(context: Context) -> None:
    given = inputs(context, images=0)
    record = run(AnalysisConfig(images=0), given, context)
    assert record == DynamicsRecord(reason="analysis.images is 0")
    assert given.analyze == AnalyzeRecord(reason="analysis.images is 0")
    assert not (context.run.root / "analysis").exists()
