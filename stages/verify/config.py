"""Settings of measuring (torch-free)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from core.record import Record


class VerifyConfig(Record):
    """How long and how carefully the artifacts are measured."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    batch_sizes: tuple[Annotated[int, Field(gt=0)], ...] = (1, 8)
    """Batch sizes, images, at which latency is measured; 1 must be among them, for the gates read it."""
    latency_seconds: float = Field(20.0, gt=0, allow_inf_nan=False)
    """Seconds for all latency measuring together, shared out over batch sizes and runtimes."""
    threads: int = Field(0, ge=0)
    """CPU threads of a session; 0: all physical cores this process may use."""
    bootstrap: int = Field(2000, ge=100)
    """Bootstrap resamples behind each interval of a latency or a speed-up."""

    @model_validator(mode="after")
    def _batch_sizes_usable(self) -> Self:
        if 1 not in self.batch_sizes or len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError(f"batch_sizes is {list(self.batch_sizes)}; give distinct sizes with 1 among them.")
        return self
