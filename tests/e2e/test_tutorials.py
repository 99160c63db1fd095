"""docs/tutorials/own-data.md and ci-gate.md carried out in their order, with small trainings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import ENVIRONMENT, sets

ROOT = Path(__file__).resolve().parents[2]
SMALL = "teacher.epochs=2 distill.epochs=2 workers=0 verify.latency_seconds=0.4 gates.max_accuracy_drop=null"
ELSEWHERE = ("PYTHONPATH=benchmarks", "--dry-run", "min_speedup")
"""Of blocks that download images or weights."""


def blocks(page: str) -> list[str]:
    found = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "tutorials" / page).read_text(), re.DOTALL)
    return [block for block in found if not any(word in block for word in ELSEWHERE)]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_from_a_folder_to_a_failing_check(digit_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind, name in (("null 0", "coat"), ("deux – 2", "bag")):
            shutil.copytree(digit_folder / split / kind, tmp_path / "images" / split / name)
    small = " ".join(sets("gates.above_chance=false", *SMALL.split()))
    stand_in = tmp_path / "bin" / "compress"
    stand_in.parent.mkdir()
    start = f'"{sys.executable}" -m vitcompress "$@"'
    stand_in.write_text(f'#!/bin/sh\n[ "$1" = run ] && exec {start} {small}\nexec {start}\n')
    stand_in.chmod(0o755)
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**ENVIRONMENT, **author, "PATH": f"{stand_in.parent}:{ENVIRONMENT['PATH']}"}
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)  # noqa: S607
    shell = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
    every = [*blocks("own-data.md"), *blocks("ci-gate.md")]
    done = [subprocess.run(["/bin/sh", "-ec", block], check=False, **shell) for block in every]
    assert [one.returncode for one in done] == [0] * (len(every) - 1) + [1], done
    assert len(every) >= 6
    assert "FAIL onnx (fp32) growth on disk" in done[-1].stdout
