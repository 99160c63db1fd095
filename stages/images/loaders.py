"""Batches for training and evaluation.

A **view** is one augmentation of one image, seeded by (seed, view number, image), not by whoever happens to load it:
the same view comes out with 0 or 8 workers, on 1 or 64 processes, in an interrupted run or an uninterrupted one. Only
a source that can be read in order alone (webdataset, TFDS) falls short of that: there the position counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, Subset, get_worker_info
from torchvision.transforms import Compose, v2

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.images.crops import StoredCrop
from vitcompress.stages.images.normalize import PixelErasing, normalized
from vitcompress.stages.images.splits import ListedSplit, StreamSplit, evenly_spread
from vitcompress.stages.images.workers import worker_context, worker_init

View = tuple[Tensor, int]
VIEWS_VERSION = 2
"""Raised when the same seed, view number and image give another view: what was kept of views is then computed anew."""


@dataclass(frozen=True, slots=True)
class ViewKey:
    """An image by its position in the split, and the number that seeds its augmentation."""

    index: int
    view: int


@dataclass(eq=False)
class ViewSampler(Sampler[ViewKey]):
    """The order of one pass over the training images, drawn from (seed, epoch) alone.

    (timm's ``RepeatAugSampler`` does not say which of an image's copies is which, so that both would be the same view.)
    """

    images: int
    seed: int
    repeats: int = 1
    """Views of each image in a pass (repeated augmentation, Hoffer et al. 2020); the pass keeps its length."""
    views: int = 0
    """Fixed views an image, used in turn over the epochs; 0 for new ones in every epoch."""
    epoch: int = 0
    weights: NDArray[np.float64] | None = None
    """``[images]``: how often each is drawn relative to others; None: each once."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[ViewKey]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(self.images)
        step, weighted = self.repeats, self.weights is not None
        if self.weights is not None:
            # Systematic sampling (Madow 1949): images x weight / sum of weights times, rounded up or down.
            upto, step = np.cumsum(self.weights[order]), self.images
            points = (generator.random() + np.arange(self.images)) * (upto[-1] / self.images)
            drawn = np.searchsorted(upto, np.minimum(points, np.nextafter(upto[-1], 0)), side="right")
            order = generator.permutation(order[drawn])
        for position in range(self.images):
            index, copy = divmod(position, self.repeats)
            view = self.epoch * step + (position if weighted else copy)  # an image may be drawn again
            yield ViewKey(int(order[index]), view % self.views if self.views else view)


def _weights_of(views: Any) -> NDArray[np.float64] | None:
    """Return ``ListedSplit.weights`` of what views, answers that are kept or a ``Subset`` are made of; None: none."""
    if isinstance(views, ListedSplit):
        return views.weights
    inner = getattr(views, "split", getattr(views, "dataset", None))
    weights = None if inner is None else _weights_of(inner)
    return weights[views.indices] if weights is not None and isinstance(views, Subset) else weights


def train_transform(augment: AugmentConfig, spec: PreprocessSpec) -> Callable[[Any], Tensor]:
    """Return timm's training transform: image to float32 ``[C, size, size]``, normalised as ``spec`` says.

    The result has timm's bits; timm's own conversion to a normalised tensor takes up to three times as long. With
    ``augment.normalize_on`` device it is uint8 ``[size, size, C]``, which ``normalized`` takes; with
    ``augment.backend`` torchvision, images may also be ``Stored``.

    Grey is made of RGB at the end. Arrays of 16 bits or other channels are cropped and flipped as float tensors, by the
    same draws; what is made for pictures (``auto_augment``, colour jitter) is not for them.
    """
    plain, channels = spec.pixel.plain, (3 if spec.channels == 1 else spec.channels)
    # A jitter of 0 changes nothing and takes a tenth of the time; but it draws, and erasing draws after it.
    no_jitter = augment.color_jitter == 0 and augment.random_erasing == 0
    *pictures, to_tensor = create_transform(
        spec.size,
        is_training=True,
        scale=augment.crop_scale,
        ratio=augment.crop_ratio,
        hflip=augment.hflip,
        auto_augment=augment.auto_augment if plain else None,
        color_jitter=None if no_jitter or not plain else augment.color_jitter,
        interpolation=augment.interpolation,
        re_prob=augment.random_erasing,
        re_mode="pixel",
        mean=spec.mean * (channels // spec.channels),
        std=spec.std * (channels // spec.channels),
        separate=True,
    )
    erasing: list[Any] = [step for step in to_tensor.transforms if isinstance(step, RandomErasing)]
    if not plain:
        floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), *pictures, partial(torch.clamp, min=0, max=1)]
        return Compose([*floats, v2.Normalize(spec.mean, spec.std), v2.ToPureTensor(), *erasing])  # type: ignore[no-any-return]
    if augment.backend == "torchvision":
        crop, *flips = pictures[0].transforms
        pictures[0] = Compose([StoredCrop(crop), *flips])
    if augment.normalize_on == "device":
        spec = spec.model_copy(update={"input": "uint8"})
        erasing = [PixelErasing(step, spec) for step in erasing]
    return Compose([*pictures, partial(as_tensor, spec), *erasing])  # type: ignore[no-any-return]


def as_tensor(spec: PreprocessSpec, image: Image.Image) -> Tensor:
    """Convert an augmented PIL image of the final size to the network's input (``PreprocessSpec.prepared``)."""
    image = image.convert("L") if spec.channels == 1 else image
    return torch.from_numpy(spec.prepared(np.atleast_3d(np.asarray(image, dtype=np.uint8))))


def eval_input(spec: PreprocessSpec, image: Any) -> Tensor:
    """Convert an image by the one evaluation preprocessing to what a network takes (``PreprocessSpec.apply``)."""
    return torch.from_numpy(spec.apply(image))


@contextmanager
def seeded(*keys: int, restore: bool = True) -> Iterator[None]:
    """Run a block with the generators of random, numpy and torch seeded by ``keys``, then put them back.

    ``keys`` are whole numbers, 0 or more. Without ``restore``, where nothing else draws, it takes a fifth of the time.
    """
    state = np.random.SeedSequence(keys).generate_state(2)
    saved = (random.getstate(), np.random.get_state(), torch.get_rng_state()) if restore else None
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    # The CPU generator alone: torch.manual_seed would also reseed every GPU, once an image.
    torch.default_generator.manual_seed(int(state[0]) << 32 | int(state[1]))
    try:
        yield
    finally:
        if saved:
            random.setstate(saved[0])
            np.random.set_state(saved[1])
            torch.set_rng_state(saved[2])


@dataclass(eq=False)
class TrainViews(Dataset[View]):
    """Augmented views of a random-access split."""

    split: Any
    transform: Callable[[Any], Tensor]
    seed: int
    stored: bool = False
    """Whether the transform decodes (``ListedSplit.stored``)."""

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: ViewKey) -> View:
        image, label = self.split.stored(key.index) if self.stored else self.split[key.index]
        # A loader process draws for nothing else.
        with seeded(self.seed, key.view, key.index, restore=get_worker_info() is None):
            return self.transform(image), label


@dataclass(eq=False)
class StreamViews(IterableDataset[View]):
    """Views of a split that can only be read in order; seeded by the position in the stream."""

    split: StreamSplit
    transform: Callable[[Image.Image], Any]
    seed: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass; the source shuffles its shards by it."""
        self.epoch = epoch
        if hasattr(self.split.dataset, "set_epoch"):
            self.split.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[View]:
        for position, (image, label) in enumerate(self.split):
            with seeded(self.seed, self.epoch, 0, position):
                view = self.transform(image)
            yield view, label


@dataclass(eq=False)
class EvalViews(Dataset[Any]):
    """Every image of a random-access split once, with its class; what ``transform`` gives is collated."""

    split: Any
    transform: Callable[[Image.Image], Any]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.split[index]
        return self.transform(image), label


def train_views(split: Any, augment: AugmentConfig, spec: PreprocessSpec, seed: int) -> Dataset[Any]:
    """Return the augmented images of a split."""
    transform = train_transform(augment, spec)
    if isinstance(split, StreamSplit):
        return StreamViews(split, transform, seed)
    return TrainViews(split, transform, seed, augment.backend == "torchvision" and isinstance(split, ListedSplit))


def train_loader(
    views: Any, *, batch_size: int, seed: int, workers: int, repeats: int = 1, fixed_views: int = 0
) -> DataLoader[Any]:
    """Return shuffled full batches of what ``views`` (of ``train_views``, or a wrapper of them) holds."""
    stream = isinstance(views, IterableDataset)
    return DataLoader(
        views,
        batch_size=batch_size,
        sampler=None if stream else ViewSampler(len(views), seed, repeats, fixed_views, weights=_weights_of(views)),
        drop_last=True,
        num_workers=_readers(views, workers),
        multiprocessing_context=worker_context(workers),
        worker_init_fn=worker_init(),
        # Streams are told the epoch through their dataset object, which a process that lives on would not see change.
        persistent_workers=workers > 0 and not stream,
        # Its own: starting a pass draws from it, and a resumed pass starts once more often than an uninterrupted one.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )


@dataclass(frozen=True, eq=False)
class Mix:
    """What is done to a whole training batch where the network is."""

    spec: PreprocessSpec
    mixup: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return images, float32 ``[B, C, S, S]``, and labels: int64 ``[B]``, or shares float32 ``[B, K]`` if mixed."""
        images = normalized(self.spec, images)
        if self.mixup is None:
            return images, labels
        known = (labels >= 0) & (labels.flip(0) >= 0)  # timm mixes the first with the last, ...; else: no share
        images, shares = self.mixup(images, labels.clamp_min(0))
        return images, shares * known[:, None]


def mix_of(augment: AugmentConfig, spec: PreprocessSpec, classes: int, label_smoothing: float) -> Mix | None:
    """Return normalising, and timm's mixup and CutMix, of whole batches, as configured; None when there is nothing."""
    if augment.mixup or augment.cutmix:
        mixup = Mixup(augment.mixup, augment.cutmix, label_smoothing=label_smoothing, num_classes=classes)
        return Mix(spec, mixup)
    return Mix(spec) if augment.normalize_on == "device" else None


def eval_loader(split: Any, spec: PreprocessSpec, *, batch_size: int, workers: int) -> DataLoader[View]:
    """Return batches of every image once, in order, through the evaluation preprocessing."""
    return ordered_loader(split, partial(eval_input, spec), batch_size=batch_size, workers=workers)


def ordered_loader(
    split: Any, transform: Callable[[Image.Image], Any], *, batch_size: int, workers: int
) -> DataLoader[Any]:
    """Return batches of what ``transform`` makes of every image, once and in order, with the classes."""
    views: Any = StreamViews(split, transform, 0) if isinstance(split, StreamSplit) else EvalViews(split, transform)
    return DataLoader(
        views,
        batch_size=batch_size,
        num_workers=_readers(views, workers),
        multiprocessing_context=worker_context(workers),
        worker_init_fn=worker_init(),
        pin_memory=torch.cuda.is_available(),
    )


def _readers(views: Any, workers: int) -> int:
    """Return how many loader processes read: at most one of a stream.

    timm would give each reader whole shards, and each the same number of images whatever its shards hold.
    """
    return min(workers, 1) if isinstance(views, IterableDataset) else workers


def sample(split: Any, spec: PreprocessSpec, count: int) -> Tensor:
    """Return the evaluation input of up to ``count`` images, evenly spread over a split (the first of a stream)."""
    if isinstance(split, StreamSplit):
        images = [image for image, _ in islice(split, count)]
    else:
        images = [split[position][0] for position in evenly_spread(len(split), count)]
    return torch.stack([eval_input(spec, image) for image in images])
