"""benchmarks/code_version.py: what a line of results says of the code that made it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import code_version


def test_results_and_pages_that_a_measurement_writes_do_not_make_its_code_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        told = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(told, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    files = [tmp_path / name for name in ("benchmarks/results/a.jsonl", "docs/a.md", "benchmarks/a.py")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    clean = git("rev-parse", "HEAD")
    monkeypatch.setattr(code_version, "__file__", str(tmp_path / "benchmarks" / "code_version.py"))
    found = code_version.code_version()
    assert len(found) >= 7
    assert clean.startswith(found)
    files[0].write_text("2")
    files[1].write_text("2")
    assert code_version.code_version() == found
    files[2].write_text("2")
    assert code_version.code_version() == f"{found}-dirty"
    shutil.rmtree(tmp_path / ".git")
    assert code_version.code_version() not in (found, f"{found}-dirty", "")
