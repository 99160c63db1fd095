"""What a sweep says of its trials: which are judged, which is chosen, and what cannot be said."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")
from check.made_runs import made, written
from command_line import printed
from PIL import Image

from vitcompress.core.records import DataRecord, ModelSpec, StudentRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.compare.read import deployed_run
from vitcompress.pipeline.report.models import quantity
from vitcompress.pipeline.report.schema import read_report
from vitcompress.pipeline.sweep.judge import Judged, outdone
from vitcompress.pipeline.sweep.result import SweepResult, result_of, terminal
from vitcompress.pipeline.sweep.space import distribution, import_optuna
from vitcompress.pipeline.sweep.store import Plan, Sweep

SPACE: dict[str, Any] = {"distill.tau": {"low": 1.0, "high": 4.0}, "student.strategy": ["plain", "lift"]}


def trained(root: Path, *values: tuple[float, int] | None) -> Sweep:
    """A sweep whose trials ended with these held-out accuracies and operations; None for one that failed."""
    plan = Plan(
        config={},
        space=SPACE,
        trials=len(values),
        seed=0,
        storage="sqlite",
        host=socket.gethostname(),
        folder=str(root),
    )
    sweep = Sweep.begin(root / "sweep", plan)
    (sweep.root / "logs").mkdir()
    for each in values:
        trial = sweep.study.ask({name: distribution(one) for name, one in SPACE.items()})
        (sweep.root / "logs" / f"{trial.number:03d}.txt").write_text("error: no room\n")
        state = import_optuna().trial.TrialState.FAIL if each is None else None
        sweep.study.tell(trial, each, state=state)
    return sweep


def found(sweep: Sweep, given: dict[int, tuple[float, float, bool]]) -> tuple[list[Judged], list[Any]]:
    """Finished trials of this accuracy (give or take 1), time (give or take a tenth) and verdict."""
    judged, runs = [], []
    for number, (accuracy, ms, passes) in given.items():
        trial = sweep.trials()[number]
        report = made()
        report["verdict"] |= {"passed": passes, "word": "PASS" if passes else "FAIL", "exit_code": int(not passes)}
        row = next(row for row in report["models"] if row["deployed"])
        row["top1"] = quantity(accuracy, accuracy - 1, accuracy + 1)
        run = RunDirectory(written(sweep.run(trial).root, report))
        one = deployed_run(number, run.root, read_report(run.root))
        judged.append(Judged(trial, run, read_report(run.root), one))
        runs.append(replace(one, p50_ms=quantity(ms, ms - 0.1, ms + 0.1), speedup=quantity(9 / ms, 8.9 / ms, 9.1 / ms)))
    return judged, runs


def test_the_most_accurate_that_passes_is_chosen_and_the_rest_is_told(tmp_path: Path) -> None:
    sweep = trained(tmp_path, (91.0, 5), (95.0, 9), (92.0, 9), None)
    judged, runs = found(sweep, {0: (90.0, 1.0, True), 1: (94.0, 3.0, False), 2: (91.5, 3.2, True)})
    result = result_of(sweep, judged, runs, {}, "in turn")
    assert (result.chosen, result.exit_code, result.left) == (2, 0, 0)
    assert [row.pareto for row in result.trials] == [True, True, False, False]
    assert result.trials[3].accuracy.reason == "failed: error: no room"
    assert "000, 001 cannot be told from it" in result.sentence  # [89, 91] and [93, 95] against [90.5, 92.5]
    assert any("among 4 trials" in note and "optimistic" in note for note in result.notes)
    assert result.importances == {}
    text = printed(terminal(result))
    assert max(map(len, text.splitlines())) <= 80
    assert "91.50 [90.50, 92.50]" in text
    assert SweepResult.model_validate_json((sweep.root / "sweep.json").read_text()) == result
    assert "| **002** |" in (sweep.root / "sweep.md").read_text()
    with Image.open(sweep.root / "pareto.png") as figure:
        assert figure.width > 500


def test_without_a_passing_trial_the_most_accurate_is_named_and_the_code_is_1(tmp_path: Path) -> None:
    sweep = trained(tmp_path, (90.0, 5), (95.0, 9))
    judged, runs = found(sweep, {0: (90.0, 1.0, False), 1: (94.0, 3.0, False)})
    result = result_of(sweep, judged, runs, {}, "")
    assert (result.chosen, result.exit_code) == (1, 1)
    assert result.sentence.startswith("No trial passes its gates")
    nothing = result_of(trained(tmp_path / "b", None), (), (), {}, "")
    assert (nothing.chosen, nothing.exit_code) == (None, 1)
    assert "no room" in nothing.sentence


def test_settings_that_mattered_are_told_where_trials_are_enough(tmp_path: Path) -> None:
    sweep = trained(tmp_path, *((90.0, 5) for _ in range(10)))
    assert "equally accurate" in result_of(sweep, (), (), {}, "").notes[-1]
    sweep = trained(tmp_path / "b", *((90.0 + number, 5) for number in range(10)))
    shares = result_of(sweep, (), (), {}, "").importances
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_only_what_the_same_graph_beats_beyond_doubt_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = trained(tmp_path, (95.0, 9), (94.0, 9), (80.0, 9), (60.0, 5))

    def record(run: RunDirectory, name: str, kind: Any) -> Any:
        depth = 2 if run.root.name == "003" else 4
        spec = ModelSpec(arch="deit_tiny_patch16_224", args={"depth": depth}, num_classes=10)
        if kind is DataRecord:
            return DataRecord.model_construct(task="classification", val_images=359)
        return StudentRecord.model_construct(model=spec)

    sections: dict[str, Any] = {"fold": {}, "qat": {}, "export": {}}
    monkeypatch.setattr(RunDirectory, "load_record", record)
    monkeypatch.setattr(RunDirectory, "state", lambda run: {"resolved": json.loads(json.dumps(sections))})
    assert {number: "trial 000" in why for number, why in outdone(sweep, sweep.trials()).items()} == {2: True}
