"""`compress run --dry-run` beside the run that it foretells."""

from __future__ import annotations

import json

import pytest
import yaml
from command_line import in_process
from running import Finished


def test_a_dry_run_foretells_the_run_and_leaves_it_alone(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.pipeline.dry_run_steps._LOADING_SECONDS", 0.02)
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")}
    told = in_process(*finished.arguments, "--output", finished.root, "--dry-run")
    assert told.code == 0, told.err
    tables, _, config = told.out.partition("# config.yaml would hold:\n")
    assert yaml.safe_load(config) == yaml.safe_load((finished.root / "config.yaml").read_text())
    record = {
        name: json.loads((finished.root / "records" / f"{name}.json").read_text())
        for name in ("teacher", "student", "distill")
    }
    assert f"{record['distill']['steps']:,} (" in tables
    for name in ("teacher", "student"):
        assert f"{record[name]['cost']['parameters']:,}" in tables
    assert "Time of all of this: about" in tables
    assert "holds this run already" in " ".join(tables.split())
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")} == before
