"""What trackers are sent, read back with their own readers; and what their failures cost."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import RunConfig, load_layer, merge, requested_config, validate
from vitcompress.pipeline.runner import Runner
from vitcompress.pipeline.tracking.config import require_trackers
from vitcompress.pipeline.tracking.sinks import SINKS, Sink
from vitcompress.pipeline.tracking.tracking import tracking

NAMES = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}, "device": "cpu"}


def config(*trackers: str, **changes: Any) -> RunConfig:
    asked = merge(merge(load_layer("digits"), NAMES), {"tracking": {"trackers": list(trackers), "run_name": "first"}})
    return validate(merge(asked, changes))


def epoch(number: int, settings: str = "abc") -> dict[str, Any]:
    """A line of metrics.jsonl."""
    losses = {"spectral 11<-23": 0.5, "labels": 1.0}
    line = {"training": "student", "settings": settings, "epoch": number, "step": 10 * number, "losses": losses}
    return {**line, "val_top1_raw": 50.0 + number, "val_top1_ema": None, "gradient_norms": {"labels": 1.0}}


def measured(value: float | None) -> dict[str, float | None]:
    return {"value": value}


REPORT: dict[str, Any] = {
    "verdict": {"word": "FAIL", "why": "1 of 2 gates stand in the way", "exit_code": 1},
    "models": [
        {"label": "student plain fp16, ONNX CPU (deployed)", "top1": measured(70.5), "latency": {"1": {}}},
        {"label": "teacher, ONNX", "top1": measured(None), "latency": {"1": {}}},
    ],
    "gates": [
        {"artifact": "onnx", "gate": "max_accuracy_drop", "verdict": "fail"},
        {"artifact": "onnx", "gate": "min_speedup", "verdict": "inconclusive"},
    ],
    "history": [epoch(1, "older"), epoch(1), epoch(2), epoch(3)],
}
for _row in REPORT["models"]:
    _row["latency"]["1"]["p50_ms"] = measured(4.25)


def session(root: Path, given: RunConfig, *epochs: int, report: bool = False) -> str:
    """A session of the run at ``root`` that trains these epochs; what it printed."""
    runner = Runner(RunDirectory(root), Console(file=io.StringIO(), width=500))
    folder = root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "report.html", "report.md"):
        (folder / name).write_text(f"# {name}")
    with tracking(runner, given, given) as found:
        found.config(given)
        for number in epochs:
            assert runner.track is not None
            runner.track(epoch(number))
        if report:
            found.report(REPORT, folder)
    return str(runner.console.file.getvalue())  # type: ignore[attr-defined]


def curves(root: Path) -> list[dict[str, list[tuple[int, float]]]]:
    """The scalars of each run that TensorBoard shows, less those of its table of settings."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for folder in sorted((root / "tensorboard").iterdir()):
        events = EventAccumulator(str(folder))
        events.Reload()
        tags = events.Tags()["scalars"]
        found.append({tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags})
    return found


def test_tensorboard_has_each_step_once_over_all_sessions(tmp_path: Path) -> None:
    session(tmp_path, config("tensorboard"), 1, 2)
    session(tmp_path, config("tensorboard"), 2, report=True)  # killed after epoch 2 was sent, before its checkpoint
    (found,) = curves(tmp_path)
    assert found["distill/val_top1_raw"] == [(10, 51.0), (20, 52.0), (30, 53.0)]  # 3 was in metrics.jsonl alone
    assert found["distill/loss spectral 11-23"] == [(10, 0.5), (20, 0.5), (30, 0.5)]
    assert found["result/student plain fp16 ONNX CPU deployed/top1"] == [(0, 70.5)]
    assert found["gates/onnx max_accuracy_drop"] == [(0, 0.0)]
    assert not {"gates/onnx min_speedup", "distill/val_top1_ema", "result/teacher ONNX/top1"} & set(found)
    before = (tmp_path / "tracking.json").read_text()
    session(tmp_path, config("tensorboard", workers=1), report=True)  # all is sent already
    assert (curves(tmp_path), (tmp_path / "tracking.json").read_text()) == ([found], before)
    session(tmp_path, config("tensorboard", seed=1), 1)
    assert len(curves(tmp_path)) == 2  # other settings are another run


def test_mlflow_goes_on_in_one_run_and_has_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    session(tmp_path, config("mlflow"), 1)
    assert "warning" not in session(tmp_path, config("mlflow"), 1, 2, report=True)
    assert not mlflow.is_tracking_uri_set()  # it is left as it was found
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'vitcompress'")
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "distill/val_top1_raw")
    assert [(one.step, one.value) for one in history] == [(10, 51.0), (20, 52.0), (30, 53.0)]
    assert found.info.status == "FINISHED"
    assert found.data.params["student.model"] == "deit_tiny"
    assert json.loads(found.data.params["export.precision"]) == ["fp32", "fp16", "int8"]
    assert found.data.metrics["result/exit_code"] == 1
    assert found.data.tags["verdicts/onnx min_speedup"] == "inconclusive"
    names = [one.path for one in client.list_artifacts(found.info.run_id, "report")]
    assert names == ["report/report.html", "report/report.json"]


def test_wandb_offline_and_trackio_take_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    printed = session(tmp_path, config("wandb", "trackio"), 1, 2, report=True)
    assert "warning" not in printed
    assert "wandb:" in printed
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    assert list((tmp_path / "trackio").glob("vitcompress*"))


class Broken(Sink):
    """A tracker that draws random numbers and prints, then fails whenever it is sent figures."""

    working = False
    taken: list[int]

    def __init__(self, *given: Any) -> None:
        self.tracker, self.identifier, self.taken = self, "x", []

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        print(random.random())  # noqa: T201, S311

    def where(self) -> str:
        return "nowhere"

    def log(self, prefix: str, step: int, values: Any) -> None:
        if not Broken.working:
            raise ConnectionError("no route to host")
        steps.append(step)

    def words(self, values: Any) -> None:
        pass

    def artifact(self, files: Any) -> None:
        pass

    def finish(self, failed: bool = False) -> None:
        if not Broken.working:
            raise ConnectionError("no route to host")


steps: list[int] = []


def test_a_failure_is_one_warning_and_the_rest_is_sent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SINKS, "wandb", Broken)
    before, given = random.getstate(), config("wandb", "tensorboard")
    printed = session(tmp_path, given, 1, 2, 3, report=True)
    assert printed.count("warning  ") == 1
    assert "ConnectionError: no route to host" in printed
    assert random.getstate() == before
    assert curves(tmp_path)[0]["distill/val_top1_raw"][-1] == (30, 53.0)  # the other tracker has all
    monkeypatch.setattr(Broken, "working", True)
    steps.clear()
    assert "warning" not in session(tmp_path, given, report=True)
    assert steps == [10, 20, 30, 0]


def test_what_cannot_track_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'tracking\.trackers\.1' is \"tensorbord\", should be .*'tensorboard'"):
        requested_config(teacher="a", student="b", track="wandb,tensorbord", layers=(), sets=())
    monkeypatch.setattr("vitcompress.pipeline.tracking.config.find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacksError, match=r"'mlflow' is not installed; `pip install 'vitcompress\[ml"):
        require_trackers(config("mlflow").tracking)
