"""What a stage is given besides its config and inputs: the run directory and a way to speak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from vitcompress.core.errors import LeftToMain
from vitcompress.core.processes import rank
from vitcompress.core.rundir import RunDirectory


@dataclass(frozen=True)
class Context:
    """Surroundings of a stage; nothing here changes a result."""

    run: RunDirectory
    seed: int
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``; resolved in one place, ``stages.training.device``."""
    workers: int = 0
    """Processes that load images; 0 loads in this one."""
    threads: int = 0
    """Threads of torch's operators while training; 0 leaves torch's own choice."""
    fingerprint: str = ""
    """Of the stage that runs; its checkpoints carry it."""
    console: Console = field(default_factory=lambda: Console(stderr=True))
    verbose: bool = True
    """Whether details are shown, or only what the reader must know."""
    log: Callable[[str], None] = field(default=lambda text: None)
    """Takes everything that is said, shown or not, for RUN/log.txt."""
    track: Callable[[dict[str, Any]], None] | None = None
    """Takes lines of metrics for trackers (``pipeline.tracking``); None where nothing is tracked."""
    rank: int = field(default_factory=rank)
    """This process among those that train together; 0 is the one that writes."""

    def leave_to_main(self) -> None:
        """End the stage, by LeftToMain, in every process but the main one; the others wait for its record."""
        if self.rank:
            raise LeftToMain

    def say(self, text: str) -> None:
        """Log a line, and print it: always if it begins with ``note:`` or ``warning:``, otherwise as a detail."""
        self.log(f"  {text}")
        if self.verbose or text.startswith(("note:", "warning:")):
            self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
