"""What one model answers to each held-out image. Shapes: B images of a batch, N in all, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.training.evaluate import correct

NO_ANSWER = -1
"""In place of a class where the logits hold a NaN: wrong, without confidence, and agreeing with nothing."""


@dataclass(frozen=True)
class Answers:
    """Of one model to every image, in the images' order; each array ``[N]``."""

    answer: NDArray[np.int64]
    """The class with the highest logit, the first of equal ones; ``NO_ANSWER`` where there is none."""
    confidence: NDArray[np.float64]
    """Softmax probability of the answer, 0 to 1; 0 where there is none."""
    right: NDArray[np.bool_]
    right5: NDArray[np.bool_]
    """Whether the label is among the five highest logits."""

    @classmethod
    def of(cls, logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Answers:
        """Return the answers of ``logits [B, K]`` to images of ``labels [B]``.

        Raises:
            ValueError: shapes do not fit, no images, or a label that is not one of the K classes.
        """
        right, right5 = correct(logits, labels), correct(logits, labels, k=5)
        lacking = np.isnan(logits).any(axis=1)
        exact = np.where(lacking[:, None], 0.0, logits.astype(np.float64))
        highest = exact.max(axis=1, keepdims=True)
        # Infinite logits too have a highest; its distance to itself is 0, which inf - inf is not.
        with np.errstate(invalid="ignore"):
            below = np.where(exact == highest, 0.0, exact - highest)
        return cls(
            answer=np.where(lacking, NO_ANSWER, exact.argmax(axis=1)),
            confidence=np.where(lacking, 0.0, 1 / np.exp(below).sum(axis=1)),
            right=right,
            right5=right5,
        )

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers of consecutive batches in one."""
        return cls(
            answer=np.concatenate([part.answer for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            right=np.concatenate([part.right for part in parts]),
            right5=np.concatenate([part.right5 for part in parts]),
        )

    def agrees(self, other: Answers) -> NDArray[np.bool_]:
        """Return whether both give the same answer to each image, bool ``[N]``; False where there is no answer."""
        same: NDArray[np.bool_] = (self.answer == other.answer) & (self.answer != NO_ANSWER)
        return same
