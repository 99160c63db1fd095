"""What every model that runs here answers to every held-out image, in one pass.

Shapes: B images of a batch, N in all, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.held_out import HeldOutBatch
from vitcompress.stages.judging.accuracy import correct
from vitcompress.stages.judging.contestant import Contestant

BATCH = 8
"""Images a batch; fewer where an engine takes fewer."""
NO_ANSWER = -1
"""In place of a class where the logits hold a NaN: wrong, without confidence, and agreeing with nothing."""


@dataclass(frozen=True)
class Answers:
    """Of one model to every image, in the images' order; each array ``[N]``."""

    answer: NDArray[Any]
    """The class with the highest logit, the first of equal ones; ``NO_ANSWER`` where there is none. Of several labels a
    tuple of those decided (``judging.label_metrics.label_answers``)."""
    confidence: NDArray[np.float64]
    """Softmax probability of the answer, 0 to 1; 0 where there is none."""
    right: NDArray[np.bool_]
    right5: NDArray[np.bool_]
    """Whether the label is among the five highest logits."""

    @classmethod
    def of(cls, logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Answers:
        """Return the answers of ``logits [B, K]`` to images of ``labels [B]``; a ValueError is raised for a misfit."""
        right, right5 = correct(logits, labels), correct(logits, labels, k=5)
        lacking = np.isnan(logits).any(axis=1)
        exact = np.where(lacking[:, None], 0.0, logits.astype(np.float64))
        highest = exact.max(axis=1, keepdims=True)
        # Infinite logits too have a highest; its distance to itself is 0, which inf - inf is not.
        with np.errstate(invalid="ignore"):
            below = np.where(exact == highest, 0.0, exact - highest)
        answer = np.where(lacking, NO_ANSWER, exact.argmax(axis=1))
        return cls(answer, np.where(lacking, 0.0, 1 / np.exp(below).sum(axis=1)), right, right5)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers of consecutive batches in one."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def agrees(self, other: Answers) -> NDArray[np.bool_]:
        """Return whether both give the same answer to each image, bool ``[N]``; False where there is no answer."""
        return np.asarray((self.answer == other.answer) & (self.answer != NO_ANSWER), np.bool_)


@dataclass(frozen=True)
class HeldOut:
    """The images, and what each model answers to them."""

    names: tuple[str, ...]
    labels: NDArray[Any]
    """Class numbers int64 ``[N]``; of several labels float32 ``[N, K]``."""
    digest: str
    """See ``stages.images.held_out.images_digest``."""
    answers: tuple[Answers | None, ...]
    """Of each model, in the order given; None for one that cannot run here."""
    outputs: tuple[NDArray[np.float32] | None, ...] = ()
    """Of each model ``[N, K]``; empty for a classification, whose logits are not kept."""
    thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of several labels: by network, the probability of each class above which it is answered."""


Reader = Callable[[Sequence[PreprocessSpec], int], Iterable[HeldOutBatch]]
"""Reads all held-out images in order: their preprocessings, and images a batch."""


Whole = Callable[[NDArray[np.float32], NDArray[Any]], Answers]
"""From all outputs ``[N, K]`` of a model and all labels to its answers."""
Keep = Callable[[Sequence[NDArray[np.float32] | None]], None]
"""Takes the logits ``[B, K]`` of a batch, of each model in order; None of one that cannot run here."""


def ask(
    models: Sequence[Contestant], read: Reader, keep: Keep | None = None, answered: Whole | None = None
) -> tuple[NDArray[Any], tuple[str, ...], tuple[Answers | None, ...], tuple[NDArray[np.float32] | None, ...]]:
    """Return of all held-out images the labels, the digests of their pixels, each model's answers, and its outputs.

    Digests are empty texts where images are files (``HeldOutBatch.pixels``); answers and outputs of a model that cannot
    run here are None. ``keep`` is given the logits of every batch. ``answered`` makes answers of all outputs at once;
    without it each batch is answered, and outputs are not kept. Errors are those of ``read``.
    """
    batch = min([BATCH, *(each.max_batch for each in models if each.infer and each.max_batch)])
    specs = list(dict.fromkeys(each.spec for each in models if each.infer))
    parts: list[list[Answers]] = [[] for _ in models]
    outputs: list[list[NDArray[np.float32]]] = [[] for _ in models]
    labels: list[NDArray[Any]] = []
    pixels: list[str] = []
    for images in read(specs, batch):
        labels.append(images.labels)
        pixels.extend(images.pixels)
        found = [each.infer(images.inputs[each.spec]) if each.infer else None for each in models]
        for logits, answers, whole in zip(found, parts, outputs, strict=True):
            if logits is None:
                continue
            if answered:
                whole.append(logits)
            else:
                answers.append(Answers.of(logits, images.labels))
        if keep:
            keep(found)
    every = np.concatenate(labels)
    if answered is None:
        return every, tuple(pixels), tuple(Answers.joined(part) if part else None for part in parts), ()
    kept = tuple(np.concatenate(whole) if whole else None for whole in outputs)
    return every, tuple(pixels), tuple(None if own is None else answered(own, every) for own in kept), kept
