"""The table of `benchmarks/loss_balance.py`, and what its students differ in."""

from __future__ import annotations

import sys
from pathlib import Path

import loss_balance
import pytest
from click.testing import CliRunner
from loss_balance import Row, markdown, methods_of


def row(balance: str, scales: dict[str, float]) -> Row:
    return Row(
        strategy="lift",
        balance=balance,
        seed=0,
        top1=61.25,
        first_shares={"labels": 0.25, "spectral 11<-11": 0.75},
        last_shares={"labels": 0.5, "spectral 11<-11": 0.5},
        first_norms={"labels": 2.0, "spectral 11<-11": 0.5},
        last_norms={"labels": 1.0, "spectral 11<-11": 0.25},
        scales=scales,
        seconds=3.0,
    )


def test_students_differ_in_strategy_and_balance_alone() -> None:
    methods = methods_of(["plain", "lift"])
    assert [method.name for method in methods] == ["plain-fixed", "plain-gradients", "lift-fixed", "lift-gradients"]
    assert len({str(method.settings["distill"]["features"]) for method in methods}) == 1
    assert {len(method.settings["distill"]) for method in methods} == {2}


def test_the_table_has_a_line_a_term_and_names_a_student_once() -> None:
    lines = markdown([row("fixed", {}), row("gradients", {"spectral 11<-11": 0.125})]).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[:4] for line in cells] == [
        ["lift", "fixed", "0", "61.25"],
        [""] * 4,
        ["lift", "gradients", "0", "61.25"],
        [""] * 4,
    ]
    assert cells[1][4:] == ["spectral 11<-11", "75.0 -> 50.0", "0.5 -> 0.25", ""]
    assert cells[3][-1] == "0.125"


def test_what_the_students_differ_in_cannot_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["loss_balance.py"])
    done = CliRunner().invoke(
        loss_balance.main, ["--set", "distill.balance=fixed", "--output", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []
