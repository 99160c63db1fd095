"""The two ideas of docs/evidence/plan.md beyond the papers, put into the product's stages for the length of a training.

They are not settings of the product: one becomes a setting only if it wins as the plan says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from vitcompress.core.records import DataRecord, TeacherRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.stages.analysis.sample import training_sample
from vitcompress.stages.distill import job
from vitcompress.stages.distill.losses import terms
from vitcompress.stages.distill.losses.alignment import normalised, on_grid
from vitcompress.stages.distill.pairs import LayerPair
from vitcompress.stages.images.loaders import TrainViews, ViewKey, train_transform
from vitcompress.stages.models.build import build_model, logits_and_taps
from vitcompress.stages.models.weights import load_own

IMAGES = 1000
"""Training images that the whitening is fitted on."""
CROPS = (1.0, 0.8, 0.6)
"""Least shares of the image that a crop takes in each third of the schedule; the middle one is `gentle`'s."""


@contextmanager
def applied(idea: str | None, base: Path, width: int, epochs: int) -> Iterator[None]:
    """Train with an idea, or as it is.

    Args:
        idea: `whitened`, `rising`, or None.
        base: a run that has the data and the teacher.
        width: of the student's tokens.
        epochs: of the training; each has a view of its own.
    """
    if idea == "whitened":
        with patch.object(terms, "aligned", whitening(base, width)):
            yield
    elif idea == "rising":
        with patch.object(job, "train_views", Rising.makers(epochs)):
            yield
    else:
        yield


@cache
def whitening(base: Path, width: int) -> Callable[[LayerPair, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what brings two taps to one shape: the teacher's leading directions, each of variance 1."""
    run = RunDirectory.existing(base)
    record = run.load_record("teacher", TeacherRecord)
    network = load_own(build_model(record.model), record.weights, run.root).eval()
    batches = training_sample(run.load_record("data", DataRecord), IMAGES).batches(
        record.preprocess, batch_size=50, workers=0
    )
    with torch.inference_mode():
        taps = [logits_and_taps(network, batch, (record.depth - 1,))[1][0] for batch in batches]
    tokens = torch.cat([tap.permute(0, 2, 3, 1).reshape(-1, tap.shape[1]) for tap in taps]).double()
    mean = tokens.mean(0)
    values, vectors = torch.linalg.eigh((tokens - mean).T @ (tokens - mean) / len(tokens))
    leading = (vectors / values.clamp_min(1e-12).sqrt())[:, -width:].flip(1).float()
    middle = mean.float()

    def aligned(pair: LayerPair, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        theirs = on_grid(teacher.float(), (student.shape[-2], student.shape[-1]))
        here, along = middle.to(theirs.device), leading.to(theirs.device)
        target = torch.einsum("bchw,cd->bdhw", theirs - here[:, None, None], along)
        return normalised(student.float()), target

    return aligned


@dataclass(eq=False)
class Rising(TrainViews):
    """Views of which the later ones are cropped more; teacher and student see the same ones."""

    later: tuple[Callable[[Any], Tensor], ...] = ()
    epochs: int = 1

    def __getitem__(self, key: ViewKey) -> Any:
        self.transform = self.later[min(len(self.later) - 1, len(self.later) * key.view // self.epochs)]
        return super().__getitem__(key)

    @classmethod
    def makers(cls, epochs: int) -> Callable[..., Rising]:
        """Return what stands in for ``train_views``."""

        def views(split: Any, augment: Any, spec: Any, seed: int) -> Rising:
            each = tuple(
                train_transform(augment.model_copy(update={"crop_scale": (least, 1.0)}), spec) for least in CROPS
            )
            return cls(split, each[0], seed, later=each, epochs=epochs)

        return views
