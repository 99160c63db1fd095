"""Settings of tracking (torch-free)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.record import Record
from vitcompress.stages.export.config import listed

TrackerName = Literal["wandb", "mlflow", "tensorboard", "trackio"]


class TrackingConfig(Record):
    """Where a run's figures are sent while it runs; by default nowhere. It changes no result."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = frozenset({"trackers", "project", "run_name", "directory"})

    trackers: Annotated[tuple[TrackerName, ...], BeforeValidator(listed)] = ()
    """What the run is sent to: wandb, mlflow, tensorboard, trackio; each needs the extra of its name."""
    project: str = Field("vitcompress", min_length=1)
    """W&B's and Trackio's project, MLflow's experiment."""
    run_name: str | None = Field(None, min_length=1)
    """The run's name in each tracker. null: its folder's name."""
    directory: str | None = Field(None, min_length=1)
    """Folder for what trackers write on this machine. null: the run's own folder; Trackio's is its own then. The
    variables MLFLOW_TRACKING_URI, WANDB_DIR and TRACKIO_DIR go before it."""


def require_trackers(config: TrackingConfig) -> None:
    """Raise an EnvironmentLacksError where a tracker that is asked for is not installed."""
    for name in config.trackers:
        if find_spec(name) is None:
            raise EnvironmentLacksError(
                f"tracker '{name}' is not installed; `pip install 'vitcompress[{name}]'`, or leave it out of --track."
            )
