"""A teacher that is used as given: does its classifier know these classes, and as well as its features would allow?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.sources import Images, StreamSplit
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probe import FIXED_PENALTY, fitted_heads, linear_heads
from vitcompress.stages.teacher.probing import features_of
from vitcompress.stages.teacher.tuning import FEWEST
from vitcompress.stages.training.chance import against_chance, chance_level, clearly_better
from vitcompress.stages.training.device import make_accelerator

_IMAGES = 1000
"""Of each split, at most, that the comparison with a linear probe looks at."""


def judge_as_given(
    right: NDArray[np.bool_], labels: NDArray[np.int64], note: str, classes: int, context: Context
) -> None:
    """Refuse a teacher used as given that does not know the data's classes: what it teaches would be noise.

    Of one that does, ``note`` (of ``better_probe``) is said.

    Raises:
        UsageError: its answers to the held-out ``labels`` [N] are no better than chance.
    """
    count, chance = len(labels), chance_level(labels, classes)
    verdict = against_chance(int(right.sum()), count, chance)
    found = f"{100 * right.mean():.1f} % of {count:,} held-out images right, where chance is {100 * chance:.1f} %"
    if verdict == "undecided":
        context.say(f"note: too few held-out images to tell the teacher from chance ({found})")
    if verdict == "no better":
        raise UsageError(
            f"the teacher, used as given, is no better than chance ({found}): its classes are another dataset's or in "
            "another order, or the weights are the wrong ones. Check the weights and the names of the class folders "
            "(sorted, they give the order), or fit the teacher to this data with --set teacher.epochs=10."
        )
    if note:
        context.say(note)


def better_probe(
    model: nn.Module,
    images: Images,
    preprocess: PreprocessSpec,
    right: NDArray[np.bool_],
    config: TeacherConfig,
    context: Context,
) -> str:
    """Return a note where a linear probe of the teacher's features is clearly better than its own classifier, or "".

    Such a classifier is stale, or some of its classes are in another order. The probe is fitted to at most ``_IMAGES``
    training images and compared on as many held-out ones. Nothing is done for sources that are read in order, and where
    so few images are fewer than ``FEWEST`` a class.

    Args:
        model: the teacher; on the CPU afterwards.
        images: both splits.
        preprocess: of the evaluation.
        right: whether the teacher answers each held-out image, ``[N]``.
        config: of the teacher.
        context: device and processes; all of them take part.
    """
    classes = len(images.classes)
    if isinstance(images.train, StreamSplit) or isinstance(images.val, StreamSplit):
        return ""
    shape = (2, 3, preprocess.size, preprocess.size)
    fitted_to, compared_on = _spread(len(images.train)), _spread(len(images.val))
    if len(fitted_to) < FEWEST * classes or not linear_heads(
        model, torch.rand(shape, generator=torch.Generator().manual_seed(0))
    ):
        return ""

    def features(split: Any, positions: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        found, labels = features_of(model, Subset(split, positions.tolist()), preprocess, config, context)
        return torch.from_numpy(found), torch.from_numpy(labels)

    inputs, labels = features(images.train, fitted_to)
    device = make_accelerator(context.device).device
    ((_, head),) = fitted_heads(inputs, labels, classes, (FIXED_PENALTY,), device)
    theirs, own = head.right(*features(images.val, compared_on)), right[compared_on]
    if not clearly_better(theirs, own):
        return ""
    return (
        f"note: the teacher's own classifier is right on {100 * own.mean():.1f} % of {len(own):,} held-out images, "
        f"a linear probe of its features, fitted to {len(labels):,} training images, on {100 * theirs.mean():.1f} %: "
        "some of its classes may be in another order than the data's (the sorted names of the class folders), or it "
        "was trained on other images; --set teacher.epochs=10 adapts it to these"
    )


def _spread(count: int) -> NDArray[np.int64]:
    """Return positions of at most ``_IMAGES`` images, evenly over a split of so many."""
    return np.unique(np.linspace(0, count - 1, min(_IMAGES, count)).astype(np.int64))
