"""How fast a pass over images goes, and the bar that shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vitcompress.core.context import Context


@dataclass
class Pace:
    """How fast one pass over the images goes."""

    started: float = field(default_factory=time.monotonic)
    images: int = 0
    """Taken so far, in all processes."""

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(time.monotonic() - self.started, 1e-9)


def progress_bar(context: Context, figures: str = "") -> Bar:
    """Return a bar with images a second, for the main process's terminal; elsewhere it shows nothing.

    ``figures`` is rich's markup of what else is shown, each followed by two spaces.
    """
    return Bar(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TextColumn(f"{{task.percentage:3.0f}} %  {figures}{{task.fields[rate]}} images/s  left"),
        TimeRemainingColumn(),
        console=context.console,
        transient=True,
        disable=not (context.console.is_interactive and context.rank == 0),
    )
