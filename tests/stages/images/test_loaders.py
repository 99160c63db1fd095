"""Batches: the same whoever loads them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import LIGHT_AUGMENT, SPEC, STRONG_AUGMENT
from timm.data import create_transform

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.loaders import (
    StreamViews,
    TrainViews,
    ViewKey,
    ViewSampler,
    eval_loader,
    mix_of,
    sample,
    seeded,
    train_loader,
    train_transform,
    train_views,
)
from vitcompress.stages.images.sources import StreamSplit, open_images

STRONG = STRONG_AUGMENT
"""Every kind of augmentation: crops, flips, RandAugment, erasing."""


@pytest.fixture(scope="module")
def split(digits_folder):
    return open_images(DataConfig(source=str(digits_folder))).train


def views_of(loader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images, labels) for images, labels in loader]


def same(one, other) -> bool:
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("augment", [STRONG, LIGHT_AUGMENT])
def test_views_do_not_depend_on_who_loads_them(split, augment: AugmentConfig) -> None:
    found = []
    for workers in (0, 2):
        loader = train_loader(train_views(split, augment, SPEC, 3), batch_size=16, seed=3, workers=workers)
        loader.sampler.set_epoch(2)
        found.append(views_of(loader))
    assert same(*found)
    labels = torch.cat([labels for _, labels in found[0]])
    assert labels.dtype == torch.int64
    assert labels.unique().numel() > 5  # shuffled
    assert [tuple(images.shape) for images, _ in found[0]] == [(16, 3, 32, 32)] * 5


def test_views_are_a_function_of_seed_view_and_image(split) -> None:
    def views(seed: int, view: int) -> torch.Tensor:
        dataset = TrainViews(split, train_transform(STRONG, SPEC), seed)
        return torch.stack([dataset[ViewKey(index, view)][0] for index in range(8)])

    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: S311 - the generator under test

    with seeded(1):
        wanted = drawn()
    with seeded(1):
        first = views(0, 0)
        assert drawn() == wanted  # loading a view leaves the generators alone
    with seeded(2):
        assert torch.equal(views(0, 0), first)
    assert not torch.equal(views(0, 1), first)
    assert not torch.equal(views(1, 0), first)
    dataset = TrainViews([split[0]] * 2, train_transform(STRONG, SPEC), 0)
    assert not torch.equal(dataset[ViewKey(0, 0)][0], dataset[ViewKey(1, 0)][0])  # of one image at two places


@pytest.mark.parametrize(
    "augment",
    [
        STRONG,
        LIGHT_AUGMENT,
        AugmentConfig(crop_scale=(0.3, 1.0), auto_augment=None, color_jitter=0.0, random_erasing=0.0),
    ],
    ids=["strong", "light", "none drawn after the crop"],
)
def test_views_are_what_timms_own_transform_gives(split, augment: AugmentConfig) -> None:
    """To the last bit, though pixels are looked up and a jitter of nothing is left out."""
    theirs = create_transform(
        SPEC.size,
        is_training=True,
        scale=augment.crop_scale,
        ratio=augment.crop_ratio,
        hflip=augment.hflip,
        auto_augment=augment.auto_augment,
        color_jitter=augment.color_jitter,
        interpolation=augment.interpolation,
        re_prob=augment.random_erasing,
        re_mode="pixel",
        mean=SPEC.mean,
        std=SPEC.std,
    )
    views = TrainViews(split, train_transform(augment, SPEC), 7)
    for index in range(20):
        with seeded(7, 1, index):
            expected = theirs(split[index][0])
        found = views[ViewKey(index, 1)][0]
        assert torch.equal(found, expected)
        assert found.is_contiguous()


def test_evaluation_sees_every_image_once_in_order_through_the_one_preprocessing(split) -> None:
    spec = PreprocessSpec(size=24, crop_pct=0.8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    for workers in (0, 2):
        batches = views_of(eval_loader(split, spec, batch_size=32, workers=workers))
        assert [len(labels) for _, labels in batches] == [32, 32, 16]
        images = torch.cat([images for images, _ in batches])
        assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in split.items]
        for index in (0, 41, 79):
            np.testing.assert_array_equal(images[index].numpy(), spec.apply(split[index][0]))
    few = sample(split, spec, 4)
    assert torch.equal(few, images[[0, 26, 52, 79]])  # spread over the split
    assert len(sample(split, spec, 1000)) == 80


def keys(epoch: int, **settings: int) -> list[ViewKey]:
    sampler = ViewSampler(20, seed=1, **settings)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_pass_takes_each_image_once_in_an_order_of_its_own() -> None:
    first, second = keys(0), keys(1)
    assert sorted(key.index for key in first) == sorted(key.index for key in second) == list(range(20))
    assert [key.index for key in first] != [key.index for key in second]
    assert {key.view for key in first} == {0}
    assert {key.view for key in second} == {1}
    assert keys(1) == second


def test_repeated_augmentation_takes_fewer_images_and_different_views_of_each() -> None:
    """timm's RepeatAugSampler likewise repeats each image in a row and keeps the length of the pass."""
    found = keys(2, repeats=3)
    assert len(found) == len(set(found)) == 20
    images = [key.index for key in found]
    assert [images[start : start + 3] for start in range(0, 18, 3)] == [
        [images[start]] * 3 for start in range(0, 18, 3)
    ]
    assert len(set(images)) == 7
    assert {key.view for key in found} == {6, 7, 8}
    assert not {key.view for key in found} & {key.view for key in keys(3, repeats=3)}
    assert [{key.view for key in keys(epoch, views=2)} for epoch in range(4)] == [{0}, {1}, {0}, {1}]  # in turn


def test_mixing_is_timms_and_off_by_default() -> None:
    assert mix_of(AugmentConfig(), SPEC, 10, 0.1) is None
    mix = mix_of(AugmentConfig(mixup=0.8), SPEC, 10, 0.1)
    assert mix is not None
    images = torch.rand(4, 3, 8, 8)
    mixed, shares = mix(images.clone(), torch.tensor([1, 2, 3, 4]))
    share = float((shares[0, 1] - 0.01) / 0.9)
    torch.testing.assert_close(mixed[0], share * images[0] + (1 - share) * images[3], atol=1e-6, rtol=1e-5)


class Colours(list[Any]):
    """A stream of ten pictures, which is told the epoch as timm's are."""

    epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def colours() -> StreamSplit:
    return StreamSplit(Colours((Image.new("RGB", (32, 32), (n,) * 3), n) for n in range(10)), 10, 1000)


def test_streams_give_seeded_views_and_samples() -> None:
    split = colours()
    views = StreamViews(split, train_transform(STRONG, SPEC), 0)
    first = torch.stack([view for view, _ in views])
    assert torch.equal(torch.stack([view for view, _ in views]), first)
    views.set_epoch(1)
    assert split.dataset.epoch == 1
    assert not torch.equal(torch.stack([view for view, _ in views]), first)
    assert sample(split, SPEC, 3).shape == (3, 3, 32, 32)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_read_by_one_process_at_most(workers: int) -> None:
    """Each of several would read all of this one: timm's streams divide themselves by whole shards, or not at all."""
    trained = train_loader(train_views(colours(), STRONG, SPEC, 0), batch_size=5, seed=0, workers=workers)
    judged = eval_loader(colours(), SPEC, batch_size=4, workers=workers)
    for loader, sizes in ((trained, [5, 5]), (judged, [4, 4, 2])):
        labels = [labels for _, labels in loader]
        assert [len(batch) for batch in labels] == sizes
        assert torch.cat(labels).tolist() == list(range(10))
