"""SIGKILL at any moment, then the same command: the final weights are bit by bit those of an uninterrupted run."""

from __future__ import annotations

import random
from pathlib import Path

import moments
import pytest
from forked import forked
from running import NAMES, TINY, Finished, sets

SETTINGS = (*TINY, "teacher.checkpoint_seconds=0", "distill.checkpoint_seconds=0")
POINTS = ("writing:17", "written:5", "replacing:9", "evaluating", "kept", "weights", "recorded")


def run(root: Path, point: str, *extra: str) -> int:
    """Run until the point; the exit code (-9: killed there)."""
    code, err = forked(moments.start, [point, "KILL", "run", *NAMES, *sets(*SETTINGS, *extra), "--output", str(root)])
    assert code in (0, -9), err
    return code


def snapshots(root: Path) -> dict[str, bytes]:
    """Bytes by path, hidden leftovers included."""
    folder = root / "student" / "snapshots"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.sweep
@pytest.mark.parametrize(("workers", "views"), [(0, 0), (2, 0), (0, 2)])
def test_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path, workers: int, views: int) -> None:
    drawn = random.Random()  # noqa: S311 - other moments in every test run
    points = [f"step:{drawn.randint(2, 12)}" for _ in range(3)] + list(POINTS)
    drawn.shuffle(points)
    first = ["caching:5", "caching:9"] if views else []
    settings = ("distill.epochs=3", f"workers={workers}", f"distill.views={views}")
    assert run(tmp_path / "whole", "fold", *settings) == -9
    assert differences(tmp_path / "whole", tmp_path / "killed", [*first, *points], *settings) == []


def test_killed_at_a_few_moments_ends_with_the_same_weights(finished: Finished, tmp_path: Path) -> None:
    """The same as those of a run that was analysed and exported besides."""
    drawn = random.Random()  # noqa: S311
    points = [f"step:{drawn.randint(2, 12)}", drawn.choice(POINTS)]
    assert differences(finished.root, tmp_path / "killed", points) == []


def differences(whole: Path, killed: Path, drawn: list[str], *setting: str) -> list[str]:
    """How a run killed at each of these moments, and started again, ends otherwise than the whole one."""
    last = ["kept", "weights", "recorded"]
    points = [*(point for point in drawn if point not in last), *(point for point in last if point in drawn)]
    found = [f"of {points} {point} was survived" for point in [*points, "fold"] if run(killed, point, *setting) != -9]
    for name in ("teacher/model.safetensors", "student/initial.safetensors", "student/model.safetensors"):
        if (whole / name).read_bytes() != (killed / name).read_bytes():
            found.append(f"{name} differs after kills at {points}")
    assert "epoch-0001.safetensors" in [Path(name).name for name in snapshots(whole)]
    return found if snapshots(killed) == snapshots(whole) else [*found, f"snapshots differ after kills at {points}"]
