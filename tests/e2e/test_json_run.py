"""`--json` of the commands that need a real run: their documents keep to the published schemas."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import document, in_process
from running import Finished

import vitcompress as vc


def test_the_documents_of_a_run(finished: Finished, run_copy: Path, tmp_path: Path) -> None:
    again = in_process(*finished.arguments, "--output", run_copy, "--json")
    found = document(again.out, "run")
    assert (again.code, found["verdict"]["exit_code"], found["bundle"]) == (0, 0, str(run_copy / "bundle"))
    assert found == {"schema": "run", "version": 1, **vc.Run(run_copy).summary.model_dump(mode="json")}
    assert "reused" in again.err
    planned = document(in_process(*finished.arguments, "--dry-run", "--on", "8xH100", "--json").out, "dry-run")
    assert planned["trainings"].keys() == planned["elsewhere"].keys() == {"teacher", "student"}
    read = document(in_process("analyze", run_copy, "--images", "8", "--json").out, "analyze")
    assert read["analysis"] == json.loads((run_copy / "analysis" / "analysis.json").read_text())
    elsewhere = in_process("verify", run_copy / "bundle", "--output", tmp_path / "there", "--json")
    there = document(elsewhere.out, "run")
    assert (there["bundle"], Path(there["result"]).is_file()) == (None, True)
    (tmp_path / "no.png").write_bytes(b"no image")
    told = in_process("predict", run_copy / "bundle", tmp_path / "no.png", "--json")
    assert "cannot be read" in document(told.out, "predict")["error"]
    assert told.code == 2
