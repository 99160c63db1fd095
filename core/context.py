"""What a stage is given besides its config and inputs: the run directory and a way to speak."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

from core.rundir import RunDirectory


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

    def say(self, text: str) -> None:
        """Print one line for the person watching."""
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
