"""One tracker of one run, by Accelerate's class for it; each subclass adds what Accelerate has no method for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from vitcompress.pipeline.tracking.config import TrackingConfig

# Nothing is reported to the makers of these libraries unless the user's own variables say so. A server that does not
# answer costs at most half a minute, once.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",  # also: it never asks for a key at the terminal
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class Sink:
    """A tracker that is open. Any error of its library may be raised by any method."""

    def __init__(self, config: TrackingConfig, root: Path, identifier: str | None) -> None:
        """Open it for the run at ``root``; ``identifier`` is what an earlier session had as ``self.identifier``."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.config, self.identifier = config, identifier or uuid4().hex[:8]
        self.folder = Path(config.directory or root).resolve()
        self.label = config.run_name or root.resolve().name
        self.tracker = self.made()
        self.tracker.main_process_only = False  # this is the main process; Accelerate's state is not asked
        self.tracker.start()
        self.began()

    def made(self) -> Any:
        """Return Accelerate's tracker, not started."""
        raise NotImplementedError

    def began(self) -> None:
        """Note what the tracker has decided itself."""

    def where(self) -> str:
        """Say where the run is to be seen."""
        raise NotImplementedError

    def log(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        """Send figures, named below ``prefix``, of an optimizer step."""
        self.tracker.log(dict(values), step=step)

    def words(self, values: Mapping[str, str]) -> None:
        """Send texts."""
        self.tracker.log(dict(values), step=0)

    def artifact(self, files: Sequence[Path]) -> None:
        """Send files of the report."""
        raise NotImplementedError

    def finish(self, failed: bool) -> None:
        """End this session's part of the run."""
        self.tracker.finish()


class TensorBoard(Sink):
    """Event files in a folder; it takes no files, so the report is shown as text."""

    def made(self) -> Any:
        """Return the writer of a folder of its own."""
        return LOGGER_TYPE_TO_CLASS["tensorboard"](f"{self.label}-{self.identifier}", self.folder / "tensorboard")

    def where(self) -> str:
        """Say how to show it."""
        return f"tensorboard --logdir {self.folder / 'tensorboard'}"

    def artifact(self, files: Sequence[Path]) -> None:
        """Send the report as text."""
        self.words({"report": files[0].with_name("report.md").read_text()})


class MLflow(Sink):
    """A server, or files where no MLFLOW_TRACKING_URI is given."""

    own = False
    """Whether this session gave MLflow its place."""

    def made(self) -> Any:
        """Return the run that an earlier session began, or a new one."""
        import mlflow

        if not mlflow.is_tracking_uri_set():
            self.own = True
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else 3.17 refuses files; its extra has no SQL
            mlflow.set_tracking_uri((self.folder / "mlruns").as_uri())
        known = self.identifier if len(self.identifier) == 32 else None  # MLflow gives a new run its identifier
        return LOGGER_TYPE_TO_CLASS["mlflow"](self.config.project, run_id=known, run_name=self.label)

    def began(self) -> None:
        """Keep MLflow's identifier of the run."""
        self.identifier = self.tracker.tracker.info.run_id

    def where(self) -> str:
        """Say what store has it, and under which name."""
        import mlflow

        return f"{mlflow.get_tracking_uri()}, run {self.identifier}"

    def words(self, values: Mapping[str, str]) -> None:
        """Set tags: metrics are numbers."""
        import mlflow

        mlflow.set_tags(dict(values))

    def artifact(self, files: Sequence[Path]) -> None:
        """Send the files to the run's artifacts."""
        for file in files:
            self.tracker.log_artifact(str(file), "report")

    def finish(self, failed: bool) -> None:
        """End the run, as failed where it is, and leave MLflow as it was found."""
        import mlflow

        if failed:
            mlflow.end_run("FAILED")
        else:
            self.tracker.finish()
        if self.own:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # as it was


class WandB(Sink):
    """W&B's server, or files to be sent later (WANDB_MODE=offline)."""

    prefixes: frozenset[str] = frozenset()
    """Whose figures have a step of their own: W&B's counts on over all stages, and takes none twice."""

    def made(self) -> Any:
        """Return the run that an earlier session began, or a new one of that name."""
        import wandb

        folder = os.environ.get("WANDB_DIR", str(self.folder))
        return LOGGER_TYPE_TO_CLASS["wandb"](
            self.config.project,
            id=self.identifier,
            name=self.label,
            resume="allow",
            dir=folder,
            settings=wandb.Settings(console="off", silent=True, init_timeout=30),
        )

    def where(self) -> str:
        """Say its page, or its folder when offline."""
        return str(self.tracker.tracker.url or self.tracker.tracker.dir)

    def log(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        """Send figures with their own step beside them."""
        if prefix not in self.prefixes:
            self.tracker.tracker.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            self.prefixes |= {prefix}
        self.tracker.log({**values, f"{prefix}/step": step})

    def words(self, values: Mapping[str, str]) -> None:
        """Set them in the run's summary."""
        self.tracker.tracker.summary.update(dict(values))

    def artifact(self, files: Sequence[Path]) -> None:
        """Send a new version of the artifact."""
        import wandb

        report = wandb.Artifact(f"report-{self.identifier}", type="report")
        for file in files:
            report.add_file(str(file))
        self.tracker.tracker.log_artifact(report)

    def finish(self, failed: bool) -> None:
        """End the session, as failed where it is."""
        self.tracker.tracker.finish(exit_code=int(failed))


class Trackio(Sink):
    """Trackio's own place on this machine, or a Space or server that its variables name."""

    def made(self) -> Any:
        """Return the run of that name, new or not."""
        if self.config.directory:
            os.environ.setdefault("TRACKIO_DIR", str(self.folder / "trackio"))
        return LOGGER_TYPE_TO_CLASS["trackio"](
            self.config.project,
            name=f"{self.label}-{self.identifier}",
            resume="allow",
            embed=False,
            auto_log_gpu=False,  # threads that would disturb what is timed
            auto_log_cpu=False,
        )

    def where(self) -> str:
        """Say how to show it."""
        return f"trackio show --project {self.config.project}"

    def artifact(self, files: Sequence[Path]) -> None:
        """Send the files, each as an artifact."""
        for file in files:
            self.tracker.tracker.log_artifact(file, name=f"{self.identifier}-{file.name}", type="report")

    def finish(self, failed: bool) -> None:
        """End the session; Accelerate's method leaves it to be ended, and told, once more when Python ends."""
        import trackio

        trackio.finish()


SINKS: dict[str, type[Sink]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB, "trackio": Trackio}
