"""One tracker of one run, by Accelerate's class for it, and what Accelerate has no method for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from vitcompress.pipeline.tracking.config import TrackingConfig

# Unless the user's own variables say otherwise, nothing is reported to the makers of these libraries, nobody is asked
# for a key at the terminal, and a server that does not answer costs less than a minute, once.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}


class Sink:
    """A tracker that is open. Any error of its library may be raised by any method."""

    own_store = False
    """Whether this session gave MLflow its place."""

    def __init__(self, name: str, config: TrackingConfig, root: Path, identifier: str | None) -> None:
        """Open it for the run at ``root``; ``identifier`` is what an earlier session had as ``self.identifier``."""
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        self.name, self.identifier = name, identifier or uuid4().hex[:8]
        label = config.run_name or root.resolve().name
        self.place = f"run {label}-{self.identifier} of {config.project}"
        make = getattr(self, f"_{name}")
        self.tracker = make(config, Path(config.directory or root).resolve(), label, identifier)
        self.tracker.main_process_only = False  # this is the main process; Accelerate's state is not asked
        self.tracker.start()
        if name == "mlflow":
            self.identifier = self.tracker.tracker.info.run_id
        if name == "wandb":
            self.place = self.tracker.tracker.url or self.tracker.tracker.dir

    def _tensorboard(self, config: TrackingConfig, folder: Path, label: str, known: str | None) -> Any:
        self.place = str(folder / "tensorboard")
        return LOGGER_TYPE_TO_CLASS["tensorboard"](f"{label}-{self.identifier}", self.place)

    def _mlflow(self, config: TrackingConfig, folder: Path, label: str, known: str | None) -> Any:
        import mlflow

        if not (os.environ.get("MLFLOW_TRACKING_URI") or mlflow.is_tracking_uri_set()):  # type: ignore[no-untyped-call]
            self.own_store = True
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # 3.17 refuses files without; skinny has no SQL
            mlflow.set_tracking_uri((folder / "mlruns").as_uri())
        self.place = mlflow.get_tracking_uri()
        return LOGGER_TYPE_TO_CLASS["mlflow"](config.project, run_id=known, run_name=label)

    def _wandb(self, config: TrackingConfig, folder: Path, label: str, known: str | None) -> Any:
        import wandb

        settings = wandb.Settings(console="off", silent=True, init_timeout=30)
        place = {"id": self.identifier, "name": label, "dir": os.environ.get("WANDB_DIR", str(folder))}
        return LOGGER_TYPE_TO_CLASS["wandb"](config.project, **place, resume="allow", settings=settings)

    def _trackio(self, config: TrackingConfig, folder: Path, label: str, known: str | None) -> Any:
        if config.directory:
            os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}  # threads would disturb what is timed
        run = f"{label}-{self.identifier}"
        return LOGGER_TYPE_TO_CLASS["trackio"](config.project, name=run, resume="allow", **quiet)

    def log(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        """Send figures of an optimizer step; W&B's own step counts over all stages and takes none twice."""
        if self.name == "wandb":
            self.tracker.tracker.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            self.tracker.log({**values, f"{prefix}/step": step})
        else:
            self.tracker.log(dict(values), step=step)

    def report(self, files: Sequence[Path]) -> None:
        """Send files; TensorBoard takes none, and shows the report as text."""
        if self.name == "wandb":
            import wandb

            artifact = wandb.Artifact(f"report-{self.identifier}", type="report")
            for file in files:
                artifact.add_file(str(file))
            self.tracker.tracker.log_artifact(artifact)
        elif self.name == "tensorboard":
            self.tracker.log({"report": files[0].with_name("report.md").read_text()}, step=0)
        else:
            for file in files:
                mlflow = self.name == "mlflow"
                name = {"artifact_path": "report"} if mlflow else {"name": f"{self.identifier}-{file.name}"}
                (self.tracker if mlflow else self.tracker.tracker).log_artifact(str(file), **name)

    def finish(self, failed: bool) -> None:
        """End this session's part of the run; W&B and MLflow show it as failed if it is."""
        if self.name == "wandb":
            self.tracker.tracker.finish(exit_code=int(failed))
        elif self.name == "mlflow":
            import mlflow

            mlflow.end_run("FAILED" if failed else "FINISHED")
            if self.own_store:
                mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # as it was found
        elif self.name == "trackio":  # Accelerate's method leaves it to be ended, and told, when Python ends
            import trackio

            trackio.finish()  # type: ignore[no-untyped-call]
        else:
            self.tracker.finish()
