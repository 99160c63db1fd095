"""Workers: how trials are claimed, shared out, pruned, stopped and gone on with. The trials are small processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")
from rich.console import Console

from vitcompress.core.errors import RunPreempted, UsageError
from vitcompress.core.records import Cost, StudentRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.sweep import store, worker
from vitcompress.pipeline.sweep.face import sweep as run_sweep
from vitcompress.pipeline.sweep.face import sweep_worker
from vitcompress.pipeline.sweep.store import Plan, Sweep
from vitcompress.pipeline.sweep.worker import Worker

TAU: dict[str, Any] = {"distill.tau": {"low": 1.0, "high": 4.0}}


def begun(root: Path, trials: int, space: dict[str, Any] = TAU, **changed: Any) -> Sweep:
    own: dict[str, Any] = {"seed": 0, "storage": "sqlite", "host": socket.gethostname(), "folder": str(root.parent)}
    plan = Plan(config={"device": "cpu"}, space=space, trials=trials, **{**own, **changed})
    return Sweep.begin(root, plan)


def trains(monkeypatch: pytest.MonkeyPatch, code: str, curves: dict[int, list[float]] | None = None) -> list[Any]:
    """Let trials be processes that carry out ``code``, with these held-out accuracies; return who was started."""
    started: list[Any] = []
    curves = curves or {}

    def start(sweep: Sweep, trial: Any, *, finish: bool, **environment: str) -> subprocess.Popen[bytes]:
        started.append((trial.number, dict(sweep.settings(trial)), environment))
        run = RunDirectory(sweep.run(trial).root)
        run.root.mkdir(parents=True, exist_ok=True)
        run._write_state({"schema": 1, "identity": {}, "stages": {}, "resolved": {"distill": {"epochs": 4}}})
        for epoch, value in enumerate(curves.get(trial.number, ()), 1):
            run.append_metrics({"training": "student", "epoch": epoch, "val_top1_raw": value, "val_top1_ema": None})
        (sweep.root / "logs").mkdir(exist_ok=True)
        (sweep.root / "logs" / f"{trial.number:03d}.txt").write_text("note\nerror: no room\n")
        return subprocess.Popen([sys.executable, "-c", f"number = {trial.number}\n{code}"])

    def outcome(run: RunDirectory) -> tuple[float, int]:
        number = int(run.root.name)
        return max(curves.get(number, [50.0])), 100

    def student(run: RunDirectory, name: str, kind: Any) -> StudentRecord:
        return StudentRecord.model_construct(cost=Cost(parameters=1, macs=100))

    monkeypatch.setattr(worker, "start", start)
    monkeypatch.setattr(worker, "outcome", outcome)
    monkeypatch.setattr(worker, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(RunDirectory, "load_record", student)
    return started


def work(sweep: Sweep, parallel: int = 1) -> None:
    Worker(sweep, parallel, None, Console(quiet=True)).work(until_all=True)


def states(sweep: Sweep) -> list[str]:
    return [trial.state.name for trial in sweep.trials()]


def test_a_crash_costs_a_trial_and_not_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = begun(tmp_path / "sweep", 4)
    started = trains(monkeypatch, "import os, signal; number != 1 or os.kill(os.getpid(), signal.SIGKILL)")
    work(sweep, parallel=2)
    assert states(sweep) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert len({settings["distill.tau"] for _, settings, _ in started}) == 4
    assert all(int(environment["OMP_NUM_THREADS"]) >= 1 for *_, environment in started)
    work(begun(tmp_path / "sweep", 5))  # more trials: the same sweep goes on, with a point of its own
    assert len({settings["distill.tau"] for _, settings, _ in started}) == len(started) == 5


def test_a_trial_that_a_scheduler_stops_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "stopped"
    code = f"import pathlib, sys; mark = pathlib.Path({str(mark)!r})\nif not mark.exists(): mark.touch(); sys.exit(85)"
    started, sweep = trains(monkeypatch, code), begun(tmp_path / "sweep", 2)
    work(sweep)
    assert states(sweep) == ["COMPLETE"] * 2
    assert [number for number, *_ in started] == [0, 0, 1]


def test_sigusr1_saves_the_trials_and_tells_it_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = begun(tmp_path / "sweep", 1)
    trains(monkeypatch, "import time; time.sleep(60)")
    threading.Thread(target=lambda: (time.sleep(1), os.kill(os.getpid(), signal.SIGUSR1)), daemon=True).start()
    with pytest.raises(RunPreempted, match="the same command goes on"):
        sweep_worker(sweep.root, progress=False)
    assert states(sweep) == ["RUNNING"]


@pytest.mark.parametrize("given", [{"mirror": "s3://bucket/run"}, {"settings": ["requeue=true"]}])
def test_what_is_of_one_run_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("distill.tau: [1, 2]")
    networks = {"teacher": "cait_s24", "student": "deit_tiny"}
    with pytest.raises(UsageError, match="which is of one run, and a sweep has many"):
        run_sweep("digits", space=tmp_path / "space.yaml", trials=2, output=tmp_path / "sweep", **networks, **given)
    assert not (tmp_path / "sweep").exists()


def test_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = trains(monkeypatch, "import time; time.sleep(0.3)")
    monkeypatch.setattr(worker, "_gpus", lambda device: ["3", "GPU-b"])
    work(begun(tmp_path / "sweep", 2), parallel=2)
    assert [environment["CUDA_VISIBLE_DEVICES"] for *_, environment in started] == ["3", "GPU-b"]


def test_a_small_space_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = trains(monkeypatch, "")
    sweep = begun(tmp_path / "sweep", 9, {"distill.alpha": [0.5, 0.9], "student.strategy": ["plain", "lift"]})
    work(sweep, parallel=2)
    assert sorted(json.dumps(settings) for _, settings, _ in started) == sorted(
        json.dumps({"distill.alpha": alpha, "student.strategy": strategy})
        for alpha in (0.5, 0.9)
        for strategy in ("plain", "lift")
    )


def test_the_hopeless_are_pruned_by_the_median_of_their_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = {number: [40.0, 60.0, 80.0, 90.0 + number] for number in range(4)} | {4: [20.0, 30.0], 5: [20.0, 70.0]}
    sweep = begun(tmp_path / "sweep", 6)
    trains(monkeypatch, "import time; time.sleep(60 if number == 4 else 0.3)", curves)
    work(sweep)
    assert states(sweep) == ["COMPLETE"] * 4 + ["PRUNED", "COMPLETE"]


def test_an_interrupted_sweep_goes_on_with_the_same_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = begun(tmp_path / "sweep", 3)
    started = trains(monkeypatch, "import time; time.sleep(60)")
    threading.Thread(target=lambda: (time.sleep(2), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            work(sweep, parallel=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert states(sweep) == ["RUNNING", "RUNNING"]
    again = trains(monkeypatch, "")
    with sweep.lock("001"):  # another worker has this one
        Worker(sweep, 2, None, Console(quiet=True)).work(until_all=False)
    assert states(sweep) == ["COMPLETE", "RUNNING", "COMPLETE"]
    work(sweep)
    assert states(sweep) == ["COMPLETE"] * 3
    assert sorted(each[:2] for each in started)[:2] == sorted(each[:2] for each in again if each[0] < 2)


def test_storage_is_refused_where_it_would_lose_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="journal"):
        begun(tmp_path / "a", 1, host="elsewhere") and Sweep.existing(tmp_path / "a")
    disk = type("Disk", (), {"mountpoint": str(tmp_path), "fstype": "nfs4"})
    monkeypatch.setattr(store.psutil, "disk_partitions", lambda all: [disk])
    with pytest.raises(UsageError, match="nfs4"):
        begun(tmp_path / "b", 1)
    shared = begun(tmp_path / "b", 2, storage="journal", host="elsewhere")
    trains(monkeypatch, "")
    work(shared)
    assert states(Sweep.existing(shared.root)) == ["COMPLETE"] * 2
    with pytest.raises(UsageError, match="another sweep"):
        begun(tmp_path / "b", 2, {"distill.tau": [1]}, storage="journal")
