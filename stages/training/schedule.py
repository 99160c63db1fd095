"""The learning rate over a training: timm's schedules by name, and the one that follows the score."""

from __future__ import annotations

import math
from typing import Any

from timm.scheduler import create_scheduler_v2

from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.job import Trained, TrainingState


def make_schedule(optimizer: Any, config: TrainingConfig, epochs: int, steps: int) -> Any:
    """Return timm's schedule of a training of ``epochs`` of ``steps``; its ``step_update(steps taken)`` sets the rates.

    All cycles and the cooldown at the lowest rate fit into ``epochs``; in timm they lengthen the training. Of a plateau
    it is warm-up and a constant rate, which ``Plateau`` lowers.
    """
    plateau, args = config.scheduler == "plateau", dict[str, Any](config.scheduler_args)
    cycles, growth, cooldown = args.get("cycle_limit", 1), args.get("cycle_mul", 1), args.get("cooldown_epochs", 0)
    whole = cycles if growth == 1 else (growth**cycles - 1) / (growth - 1)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="step" if plateau else config.scheduler,
        num_epochs=epochs if (whole, cooldown) == (1, 0) else (epochs - cooldown) / whole,
        min_lr=min(float(config.min_lr), max(group["lr"] for group in optimizer.param_groups)),
        warmup_lr=config.warmup_lr,
        warmup_epochs=float(config.warmup_epochs),  # timm multiplies it by the steps of an epoch
        step_on_epochs=False,
        updates_per_epoch=steps,
        **({"decay_rate": 1.0} if plateau else args),
    )
    return scheduler


class Plateau(Callback):
    """Multiplies the rate by ``decay_rate`` when more than ``patience_epochs`` epochs have brought no higher score.

    As timm's ``plateau``, whose counts are in no checkpoint: a training that is resumed would begin them anew. The
    score is that of the better of raw and averaged weights; ``lowest`` is the rate that is kept to.
    """

    def __init__(self, schedule: Any, lowest: float, *, decay_rate: float = 0.1, patience_epochs: float = 10) -> None:
        self.schedule, self.first, self.lowest = schedule, list(schedule.base_values), lowest
        self.rate, self.patience, self.saved = decay_rate, patience_epochs, self
        self.counts: dict[str, float] = {"epoch": 0, "best": -math.inf, "since": 0, "factor": 1.0}
        """The newest epoch that was judged, the best score, the epoch of it or of the last decay; of the first rate."""

    def after_evaluation(self, training: TrainingState, found: Trained) -> None:
        """Count, and lower the rate if it is time to; an epoch that comes again changes nothing."""
        now, score, epoch = self.counts, found.chosen[2], training.progress.epoch
        if epoch <= now["epoch"]:
            return
        if score > now["best"]:
            now |= {"best": score, "since": epoch}
        elif epoch - now["since"] > self.patience:
            now |= {"since": epoch, "factor": now["factor"] * self.rate}
        self.load_state_dict({**now, "epoch": epoch})

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return self.counts

    def load_state_dict(self, saved: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.counts = saved
        self.schedule.base_values = [max(self.lowest, rate * saved["factor"]) for rate in self.first]
