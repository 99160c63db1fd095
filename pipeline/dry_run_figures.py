"""The figures of a dry run: what the config says of a training, and what its measured steps come to."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.measure import StepLine


@dataclass(frozen=True)
class Training:
    """One training, counted and estimated."""

    name: str
    config: TrainingConfig
    """Resolved."""
    images: int
    epochs: int
    processes: int
    line: StepLine
    """Forward and backward, measured: seconds and bytes by images."""
    loading: float
    """Images a second of the loader alone, in one process."""
    workers: int
    shares_cores: bool
    """Whether loading takes time from the networks: the same cores do both."""
    held_out: int
    evaluating: float
    """Seconds an image of an evaluation of one network, without loading it."""
    precision: str = "float32"
    """What it was measured in, and would compute in."""
    beside: float = 0.0
    """Seconds an image of a live teacher's answers; 0 where there is none, or where they could not be kept."""

    @property
    def section(self) -> str:
        """Of the config that its settings are in."""
        return "distill" if self.name == "student" else self.name

    @property
    def per_pass(self) -> int:
        """Images of one forward pass of one process."""
        return int(self.config.batch_size) // self.config.accumulation // self.processes

    @property
    def passes_per_epoch(self) -> int:
        """Forward and backward passes; the last images that fill no batch are left out."""
        return self.images // (int(self.config.batch_size) // self.config.accumulation)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return -(-self.passes_per_epoch // self.config.accumulation)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def extrapolated(self) -> bool:
        """Whether a pass of the real size was too long to be measured."""
        return self.line.large.images < self.per_pass

    @property
    def needed(self) -> float:
        """Images a second that the networks would take, were there no waiting."""
        return self.per_pass / self.line.seconds(self.per_pass)

    @property
    def pass_seconds(self) -> float:
        """A pass with its loading."""
        return self._with_loading(self.line.seconds(self.per_pass), self.per_pass)

    @property
    def step_seconds(self) -> float:
        """An optimizer step with its loading."""
        return self.pass_seconds * self.config.accumulation

    @property
    def evaluations(self) -> int:
        """Passes over the held-out images, the last epoch's included."""
        return (self.epochs - 1) // int(self.config.eval_every) + 1

    @property
    def evaluation_seconds(self) -> float:
        """Of all of them: each judges the raw weights and, where there are any, the averaged ones, in one pass."""
        judged = 1 if self.config.ema_decay is None else 2
        images = self.evaluations * self.held_out / self.processes
        return self._with_loading(judged * images * self.evaluating, images)

    @property
    def seconds(self) -> float:
        """Of the whole training, evaluations included."""
        return self.training_seconds + self.evaluation_seconds

    @property
    def training_seconds(self) -> float:
        """Of its steps alone."""
        return self.epochs * self.passes_per_epoch * self.pass_seconds

    def saved_by_views(self, views: int) -> float:
        """Seconds less than with a live teacher, were its answers to ``views`` views of an image kept.

        Filling the cache loads every view once more.
        """
        passes = float(self.images) * (self.epochs - views) / self.processes
        filled = float(self.images) * views / self.processes
        return passes * self.beside - filled / self.loading

    def _with_loading(self, computing: float, images: float) -> float:
        loading = images / self.loading
        return computing + loading if self.shares_cores else max(computing, loading)


@dataclass(frozen=True)
class Filling:
    """Running the teacher once on every view."""

    views: int
    """Of each image."""
    rows: int
    """Views of all of them."""
    seconds: float
    bytes: int
    """At most, of the disk."""
    max_bytes: float
    """That the config allows."""
