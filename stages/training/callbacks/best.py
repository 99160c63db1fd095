"""The weights of the best epoch, kept through every checkpoint, and when to stop because no epoch is as good."""

from __future__ import annotations

import math
import sys
from typing import Any

from torch import Tensor

from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.job import Trained, TrainingState

_SAVED = ("epoch", "highest", "state")


class BestWeights(Callback):
    """Of all epochs judged so far, the latest weights that are within one standard error of the best ones.

    A few hundred images cannot tell neighbouring epochs apart, and where rates fall to the end of a training, its last
    epochs are the better ones: an earlier epoch has to be better by more than chance to be preferred (the
    one-standard-error rule of Breiman et al. 1984, Classification and Regression Trees, section 3.4.3).

    After ``patience`` epochs that are worse than the best one by more than chance training stops; ``images`` choose.
    """

    def __init__(self, patience: int, images: int) -> None:
        self.patience, self.images = patience, images
        self.saved = self
        self.epoch = 0
        """Epochs trained when these weights were met; 0 before any were."""
        self.highest = -1.0
        """Top-1 of the best epoch, percent, of the images that choose."""
        self.state: dict[str, Tensor] = {}
        """A copy on the CPU."""

    def after_evaluation(self, training: TrainingState, found: Trained) -> None:
        """Keep the better of raw and averaged weights if they are as good as the best ones."""
        self.offer(training.progress.epoch, *found.chosen[1:])

    def offer(self, epoch: int, state: dict[str, Tensor], top1: float) -> None:
        """Keep a copy of these weights if they are as good as the best; an epoch that comes again changes nothing."""
        self.highest = max(self.highest, top1)
        share = self.highest / 100
        error = 100 * math.sqrt(share * (1 - share) / max(1, self.images))
        if epoch > self.epoch and top1 >= self.highest - error:
            self.epoch = epoch
            self.state = {key: value.detach().to("cpu", copy=True) for key, value in state.items()}

    def stops(self, training: TrainingState) -> bool:
        """Return whether ``patience`` epochs went by without one as good, now that so many are trained and judged."""
        return training.progress.epoch - self.epoch >= self.patience

    def metrics(self) -> dict[str, str]:
        """Say that top-1 is of images that choose the epoch, not of held-out ones that judge."""
        return {"judged_on": "tuning"}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {name: getattr(self, name) for name in _SAVED}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name in _SAVED:
            setattr(self, name, saved[name])


class HighestWeights(BestWeights):
    """The weights with the highest score of all evaluations, of equal ones the latest; training never stops for them.

    The images that choose them are those that the score is of, so it flatters them.
    """

    def __init__(self) -> None:
        super().__init__(patience=sys.maxsize, images=sys.maxsize)

    def metrics(self) -> dict[str, str]:
        """Say nothing: the training is judged as without them."""
        return {}
