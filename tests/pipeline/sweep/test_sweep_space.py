"""Spaces: what they may hold, and that everything else is refused in one sentence before a trial begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")
from vitcompress.core.errors import UsageError
from vitcompress.pipeline.sweep.space import Space, distribution, grid, point_of, read_space

BASE: dict[str, Any] = {"teacher": {"model": "cait_s24"}, "distill": {"epochs": 10}}


def read(tmp_path: Path, text: str) -> Space:
    (tmp_path / "space.yaml").write_text(text)
    return read_space(tmp_path / "space.yaml", BASE)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("distill.taus: [1, 2]", "did you mean tau"),
        ("distill.tau: [1, -1]", "greater than 0"),
        ("distill.alpha: {low: 0.5, high: 1.5}", "less than or equal to 1"),
        ("distill.tau: {low: 3, high: 1}", "low"),
        ("distill.lr: {low: 1e-4, high: 1e-2, log: true, step: 1e-4}", "step"),
        ("distill.lr: {low: 1e-4, high: 1e-2, lgo: true}", "lgo"),
        ("distill.lr: {low: 1e-4}", "high"),
        ("distill.tau: []", "[]"),
        ("distill.tau: 3", "is 3"),
        ("gates.min_speedup: [1, 2]", "cannot be swept"),
        ("data.val_fraction: [0.1, 0.2]", "cannot be swept"),
        ("distill: {tau: [1, 2]}", "cannot be swept"),
        ("distill.warmup_epochs: [1, 10]", "less than 10"),
        # Each value goes with the others' first; these two do not go together.
        ("student.wide_blocks: [1, 2]\nstrategy: [widelast, plain]", "does not read it"),
    ],
)
def test_what_a_setting_does_not_take_is_refused(line: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, f"student: [deit_tiny]\n{line}")
    assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "text", "{"])
def test_a_file_without_settings_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="space"):
        read(tmp_path, text)


def test_ranges_are_of_whole_numbers_where_the_setting_takes_no_others(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        "student: [deit_tiny]\ndistill.epochs: {low: 5, high: 9}\ndistill.tau: {low: 1, high: 4}\n"
        "distill.beta: {low: 1, high: 5, step: 2}\ndistill.lr: {low: 1e-4, high: 1e-2, log: true}\n",
    )
    kinds = {name: type(distribution(values)).__name__ for name, values in space.items()}
    assert kinds == {
        "student.model": "CategoricalDistribution",
        "distill.epochs": "IntDistribution",
        "distill.tau": "FloatDistribution",
        "distill.beta": "IntDistribution",
        "distill.lr": "FloatDistribution",
    }


def test_a_small_space_of_lists_is_tried_point_by_point_and_keeps_its_types(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        "student: [deit_tiny, deit_small]\nstudent.args: [{depth: 2}, auto]\ndistill.layer_decay: [null, 0.5]\n",
    )
    assert grid(space, 7, 0) == []
    points = [point_of(space, each) for each in grid(space, 8, 0)]
    assert len(points) == 8
    assert all(points.count(each) == 1 for each in points)
    assert {"student.model": "deit_small", "student.args": {"depth": 2}, "distill.layer_decay": None} in points
    assert [point_of(space, each) for each in grid(space, 8, 0)] == points
