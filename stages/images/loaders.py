"""Batches for training and evaluation.

Augmentation is seeded by (seed, epoch, image), not by whoever happens to load the image: the same view comes out with
0 or 8 workers, on 1 or 64 processes, in an interrupted run or an uninterrupted one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from core.preprocess import PreprocessSpec
from stages.images.config import AugmentConfig
from stages.images.sources import Images, StreamSplit

View = tuple[Tensor, int]


def train_transform(augment: AugmentConfig, spec: PreprocessSpec) -> Callable[[Image.Image], Tensor]:
    """timm's training transform: PIL image to float32 ``[3, size, size]``, normalised as ``spec`` says."""
    transform: Callable[[Image.Image], Tensor] = create_transform(
        spec.size,
        is_training=True,
        scale=augment.crop_scale,
        ratio=augment.crop_ratio,
        hflip=augment.hflip,
        auto_augment=augment.auto_augment,
        color_jitter=augment.color_jitter,
        interpolation=augment.interpolation,
        re_prob=augment.random_erasing,
        re_mode="pixel",
        mean=spec.mean,
        std=spec.std,
    )
    return transform


class EvalTransform:
    """The one evaluation preprocessing, as a torch transform."""

    def __init__(self, spec: PreprocessSpec) -> None:
        self.spec = spec

    def __call__(self, image: Image.Image) -> Tensor:
        """PIL image to float32 ``[3, size, size]``."""
        return torch.from_numpy(self.spec.apply(image))


class seeded:  # noqa: N801 - reads as the verb it is: `with seeded(1, 2, 3):`
    """Run a block with the generators of random, numpy and torch seeded by ``keys``, then put them back."""

    def __init__(self, *keys: int) -> None:
        self.keys = keys

    def __enter__(self) -> None:
        state = np.random.SeedSequence(self.keys).generate_state(2)
        self.saved = (random.getstate(), np.random.get_state(), torch.get_rng_state())
        random.seed(int(state[0]))
        np.random.seed(int(state[1]))
        # The CPU generator alone: torch.manual_seed would also reseed every GPU, once an image.
        torch.default_generator.manual_seed(int(state[0]) << 32 | int(state[1]))

    def __exit__(self, *_: object) -> None:
        random.setstate(self.saved[0])
        np.random.set_state(self.saved[1])
        torch.set_rng_state(self.saved[2])


class TrainViews(Dataset[View]):
    """Augmented views of a random-access split; ``set_epoch`` chooses which."""

    def __init__(self, split: Any, transform: Callable[[Image.Image], Tensor], seed: int) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> View:
        image, label = self.split[index]
        with seeded(self.seed, self.epoch, index):
            return self.transform(image), label


class StreamViews(IterableDataset[View]):
    """Views of a split that can only be read in order; seeded by position in the stream."""

    def __init__(self, split: StreamSplit, transform: Callable[[Image.Image], Tensor], seed: int) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each pass; the source reshuffles its shards by it."""
        self.epoch = epoch
        if hasattr(self.split.dataset, "set_epoch"):
            self.split.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[View]:
        for position, (image, label) in enumerate(self.split):
            with seeded(self.seed, self.epoch, position):
                view = self.transform(image)
            yield view, label


class EvalViews(Dataset[View]):
    """Every image of a random-access split once, through the evaluation preprocessing."""

    def __init__(self, split: Any, spec: PreprocessSpec) -> None:
        self.split = split
        self.transform = EvalTransform(spec)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> View:
        image, label = self.split[index]
        return self.transform(image), label


def train_loader(
    split: Any, augment: AugmentConfig, spec: PreprocessSpec, *, batch_size: int, seed: int, workers: int
) -> DataLoader[View]:
    """Shuffled full batches of float32 ``[B, 3, S, S]`` and int64 ``[B]``."""
    transform = train_transform(augment, spec)
    stream = isinstance(split, StreamSplit)
    views: Any = StreamViews(split, transform, seed) if stream else TrainViews(split, transform, seed)
    return DataLoader(
        views,
        batch_size=batch_size,
        shuffle=None if stream else True,
        drop_last=True,
        num_workers=workers,
        # Its own: starting a pass draws from it, and a resumed pass starts once more often than an uninterrupted one.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )


def eval_loader(split: Any, spec: PreprocessSpec, *, batch_size: int, workers: int) -> DataLoader[View]:
    """Every image once, in order."""
    views: Any = (
        StreamViews(split, EvalTransform(spec), 0) if isinstance(split, StreamSplit) else EvalViews(split, spec)
    )
    return DataLoader(views, batch_size=batch_size, num_workers=workers, pin_memory=torch.cuda.is_available())


def both_loaders(
    images: Images,
    augment: AugmentConfig,
    spec: PreprocessSpec,
    *,
    batch_size: int,
    accumulation: int,
    seed: int,
    workers: int,
) -> tuple[DataLoader[View], DataLoader[View]]:
    """The loaders of a training: shuffled parts of ``batch_size / accumulation`` images, and the held-out images."""
    part = batch_size // accumulation
    return (
        train_loader(images.train, augment, spec, batch_size=part, seed=seed, workers=workers),
        eval_loader(images.val, spec, batch_size=batch_size, workers=workers),
    )


def sample(split: Any, spec: PreprocessSpec, count: int) -> Tensor:
    """The evaluation input of up to ``count`` images spread evenly over a split, float32 ``[n, 3, S, S]``."""
    transform = EvalTransform(spec)
    if isinstance(split, StreamSplit):
        images = [image for image, _ in (pair for pair, _ in zip(split, range(count), strict=False))]
    else:
        positions = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int))
        images = [split[int(position)][0] for position in positions]
    return torch.stack([transform(image) for image in images])
