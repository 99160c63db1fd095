from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.records import DistillRecord, ModelSpec
from vitcompress.core.rundir import RunDirectory

IDENTITY = {"teacher": "a", "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.claim(tmp_path / "run", IDENTITY)


@pytest.fixture
def finished(run: RunDirectory) -> DistillRecord:
    """A stage that is done under fingerprint ``f``, with one file."""
    write_atomic(run.root / "student" / "w.bin", b"weights")
    record = DistillRecord(
        model=ModelSpec(arch="x", args={}, num_classes=2),
        weights=reference(run.root / "student" / "w.bin", run.root),
        chosen="raw",
        val_top1_raw=1.0,
        val_top1_ema=None,
        epochs=1,
        steps=1,
        seconds=1.0,
        losses={},
    )
    written = run.save_record("distill", record)
    run.mark("distill", "done", "f", settings="s", record=written, seconds=1.0)
    return record


def test_claim_makes_a_run_and_finds_it_again(run: RunDirectory, tmp_path: Path) -> None:
    again = RunDirectory.claim(run.root, dict(IDENTITY))
    assert again.state()["identity"] == IDENTITY
    assert RunDirectory.existing(run.root).state() == run.state()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").touch()
    assert RunDirectory.claim(tmp_path / "locked", IDENTITY).state_path.is_file()


def test_claim_refuses_a_file_and_a_folder_of_something_else_and_leaves_them(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("mine")
    with pytest.raises(UsageError, match=r"is a file; give a folder with --output"):
        RunDirectory.claim(thesis, IDENTITY)
    with pytest.raises(UsageError, match="not empty and not a run directory"):
        RunDirectory.claim(tmp_path, IDENTITY)
    with pytest.raises(UsageError, match=r"is not a run directory \(it has no state.json\)"):
        RunDirectory.existing(tmp_path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("thesis.tex", "mine")]


def test_claim_refuses_another_run_and_says_what_differs(run: RunDirectory) -> None:
    with pytest.raises(UsageError, match=r"seed was 0, now 1; teacher was 'a', now None\); give a different --output"):
        RunDirectory.claim(run.root, {"seed": 1})
    assert run.state()["identity"] == IDENTITY


def test_claiming_and_locking_where_nothing_can_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written \(.+\); give a folder you may write to"):
        RunDirectory.claim(tmp_path / "file" / "run", IDENTITY)
    with pytest.raises(UsageError, match="cannot be written"), RunDirectory(tmp_path / "file").locked():
        pass


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"schema": 1}', '{"schema": 1, "stages": {}}', '{"schema": 1, "stages": [], "identity": {}}'],
)
def test_a_damaged_state_is_told_as_such(run: RunDirectory, text: str) -> None:
    run.state_path.write_text(text)
    with pytest.raises(UsageError, match=r"state.json is damaged \(.+start again in a different --output"):
        run.state()
    with pytest.raises(UsageError, match="damaged"):
        RunDirectory.claim(run.root, IDENTITY)


def test_a_state_of_another_version_is_told_as_such(run: RunDirectory) -> None:
    run.state_path.write_text(json.dumps({**run.state(), "schema": 2}))
    with pytest.raises(UsageError, match="has schema 2, this version reads 1"):
        run.state()


def test_a_record_comes_back_equal_and_is_reused_under_its_fingerprint(
    run: RunDirectory, finished: DistillRecord
) -> None:
    assert run.load_record("distill", DistillRecord) == finished
    with pytest.raises(UsageError, match="has no finished 'fold' stage"):
        run.load_record("fold", DistillRecord)
    run.mark("fold", "failed", "f2", error="why")
    assert (run.stage_state("fold")["error"], run.stage_state("data")) == ("why", {})
    assert run.reusable("distill", "f", DistillRecord) == finished
    assert run.reusable("distill", "s", DistillRecord, key="settings") == finished
    assert run.reusable("distill", "f", DistillRecord, key="settings") is None
    assert run.reusable("distill", "g", DistillRecord) is None
    run.mark("distill", "running", "f")
    assert run.reusable("distill", "f", DistillRecord) is None


def test_a_record_that_the_state_does_not_know_is_not_reused(run: RunDirectory, finished: DistillRecord) -> None:
    """Killed after the new record was written and before the state told what it was made for."""
    run.save_record("distill", finished.model_copy(update={"epochs": 2}))
    assert run.reusable("distill", "f", DistillRecord) is None


@pytest.mark.parametrize("damage", [b"weightz", None])
def test_a_record_is_not_reused_when_its_file_is_not_intact(
    run: RunDirectory, finished: DistillRecord, damage: bytes | None
) -> None:
    path = run.root / finished.weights.path
    path.unlink() if damage is None else path.write_bytes(damage)
    assert run.reusable("distill", "f", DistillRecord) is None


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\x00", b'{"model": 3}'])
def test_a_damaged_record_costs_a_recomputation_not_the_run(
    run: RunDirectory, finished: DistillRecord, damage: bytes
) -> None:
    (run.root / "records" / "distill.json").write_bytes(damage)
    assert run.reusable("distill", "f", DistillRecord) is None
    with pytest.raises(UsageError, match="is damaged or from another version"):
        run.load_record("distill", DistillRecord)


def test_a_second_process_is_kept_out_and_let_in_afterwards(run: RunDirectory) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from vitcompress.core.rundir import RunDirectory; from vitcompress.core.errors import UsageError\n"
        "try:\n"
        "    with RunDirectory(Path(sys.argv[1])).locked():\n"
        "        print('got it')\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", program, str(run.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with run.locked():
        assert "is in use by another process; wait for it" in other_process()
    assert other_process() == "got it\n"


def test_metrics_of_epochs_to_be_trained_again_are_forgotten(run: RunDirectory) -> None:
    for training, epoch in (("teacher", 1), ("student", 1), ("student", 2), ("teacher", 2)):
        run.append_metrics({"training": training, "settings": "a" * 12, "epoch": epoch})
    run.append_metrics({"training": "student", "settings": "b" * 12, "epoch": 9})
    with (run.root / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n{"training": "stu')  # killed while it wrote
    run.forget_metrics("student", "a" * 64, 1)
    run.append_metrics({"training": "student", "settings": "a" * 12, "epoch": 2})
    kept = [(line["training"], line["epoch"]) for line in run.metrics()]
    assert kept == [("teacher", 1), ("student", 1), ("teacher", 2), ("student", 9), ("student", 2)]
