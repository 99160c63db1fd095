"""Which of a run's processes is this? Read from torchrun's ordinary variables, without torch."""

from __future__ import annotations

import os


def rank() -> int:
    """This process among all of the run's; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together; 1 when nothing launched several."""
    return int(os.environ.get("WORLD_SIZE", "1"))
