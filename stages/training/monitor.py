"""What a training shows and writes down of itself: the bar on a terminal, and a line of metrics an epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vitcompress.core.context import Context
from vitcompress.core.rundir import SETTINGS_SHOWN
from vitcompress.stages.training.checkpoint import Progress
from vitcompress.stages.training.memory import PeakMemory
from vitcompress.stages.training.pulse import standing
from vitcompress.stages.training.terms import shares


@dataclass
class Pace:
    """Where the time of one pass over the images goes."""

    started: float = field(default_factory=time.monotonic)
    images: int = 0
    """Taken so far, in all processes."""
    waited: float = 0.0
    """Seconds that this process stood waiting for a batch."""

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(time.monotonic() - self.started, 1e-9)


def progress_bar(context: Context, figures: str = "") -> Bar:
    """A bar with images a second, on the main process's terminal; nothing elsewhere.

    Args:
        context: whose console.
        figures: rich's markup of what else is shown, each followed by two spaces.
    """
    return Bar(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TextColumn(f"{{task.percentage:3.0f}} %  {figures}{{task.fields[rate]}} images/s  left"),
        TimeRemainingColumn(),
        console=context.console,
        transient=True,
        disable=not (context.console.is_terminal and context.rank == 0),
    )


class Monitor:
    """Tells of one training; silent in every process but the main one."""

    def __init__(
        self,
        name: str,
        settings: str,
        total_steps: int,
        context: Context,
        memory: PeakMemory,
        patience: int | None = None,
    ) -> None:
        self.name, self.settings, self.context, self.memory = name, settings, context, memory
        self.main = context.rank == 0
        self.judged = {} if patience is None else {"judged_on": "tuning"}
        """Top-1 is of images that choose the epoch; said only then."""
        self.peak: int | None = None
        self.bar = progress_bar(context, "loss {task.fields[loss]}  ")
        self.task = self.bar.add_task(name, total=total_steps, loss="-", rate="-")

    def step(self, progress: Progress, pace: Pace) -> None:
        """After each batch."""
        standing(f"step {progress.steps} of {self.name}")
        mean = sum(progress.sums.values()) / max(progress.batches, 1)
        self.bar.update(self.task, completed=progress.steps, loss=f"{mean:.3f}", rate=f"{pace.rate:.0f}")

    def epoch(
        self, progress: Progress, pace: Pace | None, lr: float, top1_raw: float | None, top1_ema: float | None
    ) -> None:
        """After each pass: one line of metrics; what was not measured after this one is null."""
        if not self.main:
            return
        self.context.run.append_metrics(
            {
                "training": self.name,
                "settings": self.settings[:SETTINGS_SHOWN],
                "epoch": progress.epoch,
                "step": progress.steps,
                "lr": lr,
                "loss": sum(progress.losses.values()),
                "losses": progress.losses,
                "shares": shares(progress.losses),
                "gradient_norms": progress.gradient_norms,
                "scales": progress.scales,
                "val_top1_raw": top1_raw,
                "val_top1_ema": top1_ema,
                **self.judged,
                "images_per_second": pace.rate if pace else None,
                "data_wait_seconds": pace.waited if pace else None,
                "peak_step_bytes": self.peak,
                "seconds": progress.seconds,
            }
        )
