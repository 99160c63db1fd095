"""Runs whose images have no labels, or only some of them: end to end, gates passed and failed, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

from command_line import Result, in_process
from running import TINY, Finished, sets

from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord
from vitcompress.core.rundir import RunDirectory

GIVEN = tuple(one for one in TINY if not one.startswith(("teacher.", "distill.")))
QUICK = (
    *GIVEN,
    "teacher.args={depth: 2}",
    "geometry=reduced",
    "workers=0",
    "distill.epochs=3",
    "distill.batch_size=16",
)

HUB = ("teacher.weights=null", "teacher.init=pretrained")


def started(finished: Finished, data: Path, output: Path, *settings: str) -> Result:
    weights = finished.root / "teacher" / "model.safetensors"
    words = ("--teacher", "cait_s24", "--student", "deit_tiny", "--strategy", "plain", "--teacher-weights", weights)
    return in_process("run", *words, "--data", data, "-o", output, *sets(*QUICK, *settings))


def test_the_teacher_is_the_label_and_agreement_the_gate(
    finished: Finished, digits_folder: Path, tmp_path: Path
) -> None:
    root, images = tmp_path / "run", digits_folder / "train"
    done = started(finished, images, root, "data.labelled=false", "gates.min_teacher_agreement=1")
    assert done.code == 0, done.err
    assert "the folders that images are in are not read as classes" in done.err
    data = RunDirectory(root).load_record("data", DataRecord)
    assert (data.unlabelled, data.val_images, data.classes[9]) == (64, 16, "class 9")
    verify = RunDirectory(root).load_record("verify", VerifyRecord)
    scores = {(row.model, row.runtime): row.top1 for row in verify.accuracy}
    assert scores.pop(("teacher", "torch")) == 100
    rows = [row for row in verify.metrics if row.metric == "teacher_agreement"]
    assert {(row.model, row.runtime): row.value for row in rows} == scores
    there = in_process("verify", root / "bundle", "--data", images, "-o", tmp_path / "there")
    assert there.code == 0, there.err
    failed = in_process("verify", root, *sets("gates.min_teacher_agreement=100"))
    assert (failed.code, "agreement with the teacher" in failed.out) == (1, True)


def test_images_without_labels_beside_labelled_ones(finished: Finished, digits_folder: Path, tmp_path: Path) -> None:
    more, run = Path(shutil.copytree(digits_folder / "train", tmp_path / "more")), RunDirectory(tmp_path / "run")
    shutil.copy(digits_folder / "val" / "digit-1" / "000.png", more / "held-out.png")
    beside = (f"data.unlabelled={more}", "data.on_duplicates=drop", "control.kind=labels", "teacher.epochs=1")
    done = started(finished, digits_folder, run.root, *beside, "teacher.tune=probe")
    assert done.code == 0, done.err
    data = run.load_record("data", DataRecord)
    assert (data.train_images, data.unlabelled, data.val_images, data.contradictory) == (160, 80, 30, 0)
    assert data.dropped == (str(more / "held-out.png"),)
    assert "trained on the 80 images that have a class" in done.err
    steps = run.load_record("control", ControlRecord).steps, run.load_record("distill", DistillRecord).steps
    assert steps == (30, 30)


def test_what_does_not_go_together_is_refused(finished: Finished, digits_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "names.txt").write_text("a\nb\n")
    for data, settings, told in (
        (tmp_path / "empty", (), "has no images"),
        (digits_folder, (f"data.labels={tmp_path / 'names.txt'}",), "2 classes, and the teacher's classifier gives 10"),
        (digits_folder, ("data.classes=7",), "has one of 10 classes (data.classes: 7)"),
        (digits_folder, ("teacher.epochs=3",), "teacher.epochs is '3', which needs labels"),
        (digits_folder, ("teacher.model=vit_small_patch14_dinov2", *HUB), "has none in its weights"),
    ):
        done = started(finished, data, tmp_path / "no", "data.labelled=false", *settings)
        assert (done.code, told in done.err, (tmp_path / "no").exists()) == (2, True, False), done.err
