"""Every model that runs here on every held-out image, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.stages.images.held_out import held_out_batches, image_names, images_digest
from vitcompress.stages.verify.answers import Answers
from vitcompress.stages.verify.contestant import Contestant

BATCH = 8
"""Images a batch; fewer where an engine takes fewer."""


@dataclass(frozen=True)
class HeldOut:
    """The images, and what each model answers to them."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    """``[N]``."""
    digest: str
    """See ``stages.images.held_out.images_digest``."""
    answers: tuple[Answers | None, ...]
    """Of each model, in the order given; None for one that cannot run here."""


def ask(models: Sequence[Contestant], split: Any, classes: Sequence[str], *, workers: int) -> HeldOut:
    """Return the answers of all ``models`` to all images of ``split``.

    Raises:
        DataError: an image cannot be read.
    """
    batch = min([BATCH, *(each.max_batch for each in models if each.infer and each.max_batch)])
    specs = list(dict.fromkeys(each.spec for each in models if each.infer))
    parts: list[list[Answers]] = [[] for _ in models]
    labels: list[NDArray[np.int64]] = []
    pixels: list[str] = []
    for images in held_out_batches(split, specs, batch_size=batch, workers=workers):
        labels.append(images.labels)
        pixels.extend(images.pixels)
        for each, answers in zip(models, parts, strict=True):
            if each.infer:
                answers.append(Answers.of(each.infer(images.inputs[each.spec].numpy()), images.labels))
    every = np.concatenate(labels)
    return HeldOut(
        names=image_names(split, len(every)),
        labels=every,
        digest=images_digest(split, classes, every, pixels),
        answers=tuple(Answers.joined(part) if part else None for part in parts),
    )
