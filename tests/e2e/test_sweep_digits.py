"""`compress sweep` on the embedded digits: real trials, one teacher, one choice; once more, and nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("optuna")
from running import NAMES, SHORT, as_process, sets

from vitcompress.core.rundir import RunDirectory


def test_a_sweep_trains_one_teacher_and_ends_with_the_verdict_of_a_run(tmp_path: Path) -> None:
    space, root = tmp_path / "space.yaml", tmp_path / "sweep"
    space.write_text("strategy: [plain, lift]\n")
    words = ("sweep", "digits", *NAMES, *sets(*SHORT), "--space", space, "--trials", "4", "--parallel", "2", "-o", root)
    first = as_process(*words)
    assert first.code == 0, first.err
    found = json.loads((root / "sweep.json").read_text())
    assert [row["accuracy"]["value"] is not None for row in found["trials"]] == [True, True]  # the space has two points
    assert found["trials"][found["chosen"]]["verdict"]["exit_code"] == found["exit_code"] == 0
    assert all(row["times_as_fast"]["low"] is not None for row in found["trials"])
    runs = [RunDirectory(root / "trials" / name) for name in ("000", "001")]
    teachers = {run.stage_state("teacher")["record"] for run in runs}
    assert len(teachers) == 1
    logs = [(root / "logs" / f"{run.root.name}.txt").read_text() for run in runs]
    assert sum("teacher  done" in log for log in logs) == 1
    assert {run.state()["identity"]["strategy"] for run in runs} == {"plain", "lift"}
    again = as_process(*words)
    assert (again.code, again.out) == (first.code, first.out)
    assert [(root / "logs" / f"{run.root.name}.txt").read_text() for run in runs] == logs
