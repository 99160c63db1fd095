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
from vitcompress.pipeline.tracking.sinks import Sink
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


def model(label: str, top1: float | None) -> dict[str, Any]:
    return {"label": label, "top1": {"value": top1}, "latency": {"1": {"p50_ms": {"value": 4.25}}}}


REPORT: dict[str, Any] = {
    "verdict": {"exit_code": 1},
    "models": [model("student plain fp16, ONNX CPU (deployed)", 70.5), model("teacher, ONNX", None)],
    "gates": [
        {"artifact": "onnx", "gate": "max_accuracy_drop", "verdict": "fail"},
        {"artifact": "onnx", "gate": "min_speedup", "verdict": "inconclusive"},
    ],
    "history": [epoch(1, "older"), epoch(1), epoch(2), epoch(3)],
}


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
    session(tmp_path, config("tensorboard", workers=1), report=True)  # all is sent already
    assert curves(tmp_path) == [found]
    session(tmp_path, config("tensorboard", seed=1), 1)
    assert len(curves(tmp_path)) == 2  # other settings are another run


def mlflow_run(root: Path) -> dict[str, Any]:
    """MLflow's only run below ``root``: curves, settings, status and files by name."""
    from mlflow import MlflowClient

    client = MlflowClient((root / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'vitcompress'")
    (run,) = client.search_runs([experiment.experiment_id])
    kept = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    histories = {name: [(one.step, one.value) for one in history] for name, history in kept.items()}
    files = [one.path for one in client.list_artifacts(run.info.run_id, "report")]
    return {**histories, "params": run.data.params, "status": run.info.status, "files": files}


def test_mlflow_goes_on_in_one_run_and_has_the_report(tmp_path: Path) -> None:
    import mlflow

    session(tmp_path, config("mlflow"), 1)
    assert "warning  " not in session(tmp_path, config("mlflow"), 1, 2, report=True)
    assert not mlflow.is_tracking_uri_set()  # it is left as it was found
    found = mlflow_run(tmp_path)
    assert found["distill/val_top1_raw"] == [(10, 51.0), (20, 52.0), (30, 53.0)]
    assert found["result/exit_code"] == [(0, 1.0)]
    assert found["status"] == "FINISHED"
    assert found["params"]["student.model"] == "deit_tiny"
    assert json.loads(found["params"]["export.precision"]) == ["fp32", "fp16", "int8"]
    assert found["files"] == ["report/report.html", "report/report.json"]


def test_wandb_offline_and_trackio_take_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    printed = session(tmp_path, config("wandb", "trackio"), 1, 2, report=True)
    assert "warning  " not in printed
    assert "wandb: " in printed
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    assert list((tmp_path / "trackio").glob("vitcompress*"))


def test_a_failure_is_one_warning_and_the_rest_is_sent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(sink: Sink, *given: Any) -> None:
        if sink.name == "mlflow":
            print(random.random())  # noqa: T201, S311
            raise ConnectionError("no route to host")
        working(sink, *given)

    working, before, given = Sink.log, random.getstate(), config("mlflow", "tensorboard")
    with monkeypatch.context() as patch:
        patch.setattr(Sink, "log", failing)
        printed = session(tmp_path, given, 1, 2, 3, report=True)
    assert printed.count("warning  tracker mlflow failed (ConnectionError: no route to host)") == 1
    assert printed.count("warning  ") == 1
    assert random.getstate() == before
    assert curves(tmp_path)[0]["distill/val_top1_raw"][-1] == (30, 53.0)  # the other tracker has all
    assert "warning  " not in session(tmp_path, given, report=True)
    found = mlflow_run(tmp_path)
    assert [step for step, _ in found["distill/val_top1_raw"]] == [10, 20, 30]


def test_what_cannot_track_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'tracking\.trackers\.1' is \"tensorbord\", should be .*'tensorboard'"):
        requested_config(teacher="a", student="b", track="wandb,tensorbord", layers=(), sets=())
    monkeypatch.setattr("vitcompress.pipeline.tracking.config.find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacksError, match=r"'mlflow' is not installed; `pip install 'vitcompress\[ml"):
        require_trackers(config("mlflow").tracking)
