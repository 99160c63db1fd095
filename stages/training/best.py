"""The weights of a training's best epoch, kept through every checkpoint, and when to stop for want of a better one."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class BestWeights:
    """Of all epochs judged so far, the weights that were right most often; the earlier of two equal ones.

    Accelerate writes it into each checkpoint and reads it back (``register_for_checkpointing``), so that a training
    that goes on after an interruption keeps the same weights and stops after the same epoch.

    Args:
        patience: epochs without a better one after which training stops.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.epoch = 0
        """Epochs trained when these weights were met; 0 before any were."""
        self.name = "raw"
        """``raw`` or ``ema``."""
        self.top1 = -1.0
        """Percent, of the images that choose."""
        self.state: dict[str, Tensor] = {}
        """A copy on the CPU."""

    @property
    def chosen(self) -> tuple[str, dict[str, Tensor], float]:
        """Name, state and top-1."""
        return self.name, self.state, self.top1

    def offer(self, epoch: int, name: str, state: dict[str, Tensor], top1: float) -> None:
        """Keep a copy of these weights if no earlier ones are as good; offered twice, they change nothing."""
        if top1 > self.top1:
            self.epoch, self.name, self.top1 = epoch, name, top1
            self.state = {key: value.detach().to("cpu", copy=True) for key, value in state.items()}

    def over(self, epoch: int) -> bool:
        """Whether ``patience`` epochs went by without a better one, now that so many are trained and judged."""
        return epoch - self.epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"epoch": self.epoch, "name": self.name, "top1": self.top1, "state": self.state}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epoch, self.name, self.top1, self.state = (saved[key] for key in ("epoch", "name", "top1", "state"))
