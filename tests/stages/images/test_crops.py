"""Crops by torchvision's kernels, and pixels that are normalised later: what of the usual views they keep."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nasty_images import oriented, write_nasty
from PIL import Image
from small_run import NO_AUGMENT, SPEC, STRONG_AUGMENT
from timm.data.transforms import RandomResizedCropAndInterpolation

from vitcompress.core.errors import DataError
from vitcompress.core.images import open_image
from vitcompress.core.pillow import hushed
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.crops import StoredCrop
from vitcompress.stages.images.loaders import TrainViews, ViewKey, seeded, train_loader, train_transform, train_views
from vitcompress.stages.images.normalize import normalized
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.images.splits import ListedSplit, Stored


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with hushed():
        yield


def picture(width: int, height: int) -> Image.Image:
    """Smooth as photographs are, and different in each corner."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def stored(path: Path) -> Stored:
    return Stored(path.read_bytes(), partial(open_image, path))


def cropped(path: Path, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> tuple[Any, Any]:
    """The same random crop ``[H, W, 3]`` by torchvision's way and by timm's."""
    width, height = open_image(path).size
    crop = RandomResizedCropAndInterpolation(size, scale, (width / height,) * 2, "bicubic")
    found = []
    for cut, image in ((StoredCrop(crop), stored(path)), (crop, open_image(path))):
        random.seed(5)
        found.append(np.asarray(cut(image)).astype(int))
        found.append(random.random())  # noqa: S311
    assert found[1] == found[3]  # what is drawn afterwards is the same too
    return found[0], found[2]


def test_every_kind_of_file_gives_its_usual_pixels_where_nothing_is_resized(tmp_path: Path) -> None:
    for path in write_nasty(tmp_path):
        found, wanted = cropped(path, open_image(path).size[::-1])
        np.testing.assert_array_equal(found, wanted, err_msg=path.name)


def test_a_crop_is_of_the_same_rectangle_within_two_levels(tmp_path: Path) -> None:
    picture(400, 300).save(tmp_path / "a.jpg", quality=95)
    found, wanted = cropped(tmp_path / "a.jpg", (224, 224), scale=(0.1, 0.9))
    assert np.abs(found - wanted).max() <= 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("times", [2, 5, 9])
def test_a_large_jpeg_is_decoded_smaller_and_turned_alike(tmp_path: Path, orientation: int, times: int) -> None:
    path = tmp_path / "a.jpg"
    picture(64 * times + 5, 48 * times + 3).save(path, quality=95, exif=oriented(orientation))
    decoded: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", _counting(decoded))
        found, wanted = cropped(path, (48, 48))
    assert decoded == [{2: 2, 5: 4, 9: 8}[times]]
    assert np.abs(found - wanted).mean() < 3


def _counting(scales: list[int]) -> Any:
    from PIL.JpegImagePlugin import JpegImageFile

    real = JpegImageFile.draft

    def draft(self: Any, mode: str, size: tuple[int, int]) -> Any:
        before = self.size[0]
        found = real(self, mode, size)
        scales.append(round(before / self.size[0]))
        return found

    return draft


def test_a_damaged_file_is_named_as_ever(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            picture(90, 70).save(tmp_path / label / f"{number}.jpg")
    whole = (tmp_path / "a" / "0.jpg").read_bytes()
    split = open_images(DataConfig(source=str(tmp_path))).train
    augment = NO_AUGMENT.model_copy(update={"backend": "torchvision"})
    views, usual = (train_views(split, each, SPEC, 0) for each in (augment, NO_AUGMENT))
    for content in (whole[: len(whole) // 2], b"", whole[:300], b"\xff\xd8\xff\xe0 no more", None):
        for key, _ in split.items:
            (tmp_path / key).write_bytes(content) if content is not None else (tmp_path / key).unlink()
        sentences = []
        for each in (views, usual):
            with pytest.raises(DataError) as caught:
                each[ViewKey(0, 0)]
            sentences.append(str(caught.value))
        assert sentences[0] == sentences[1]


@pytest.mark.parametrize("normalize_on", ["cpu", "device"])
def test_these_views_too_do_not_depend_on_who_loads_them(digits_folder: Path, normalize_on: str) -> None:
    split = open_images(DataConfig(source=str(digits_folder))).train
    augment = STRONG_AUGMENT.model_copy(update={"backend": "torchvision", "normalize_on": normalize_on})
    found = []
    for workers in (0, 2):
        loader = train_loader(train_views(split, augment, SPEC, 3), batch_size=16, seed=3, workers=workers)
        found.append(torch.cat([images for images, _ in loader]))
    assert torch.equal(*found)
    assert found[0].dtype == (torch.uint8 if normalize_on == "device" else torch.float32)


def views_of(augment: AugmentConfig, split: ListedSplit) -> list[torch.Tensor]:
    views = TrainViews(split, train_transform(augment, SPEC), 7)
    return [views[ViewKey(index, 1)][0] for index in range(40)]


def test_normalising_later_gives_the_same_bits_and_erases_the_same_rectangles(digits_folder: Path) -> None:
    split = open_images(DataConfig(source=str(digits_folder))).train
    usual = torch.stack(views_of(STRONG_AUGMENT, split))
    pixels = torch.stack(views_of(STRONG_AUGMENT.model_copy(update={"normalize_on": "device"}), split))
    assert pixels.shape == (40, 32, 32, 3)
    later = normalized(SPEC, pixels)
    assert later.is_contiguous()
    plain = torch.stack(views_of(STRONG_AUGMENT.model_copy(update={"random_erasing": 0.0}), split))
    erased = (usual != plain).any(dim=1, keepdim=True).expand_as(usual)
    assert 0 < erased.any(dim=(1, 2, 3)).sum() < 40
    assert torch.equal(later[~erased], usual[~erased])
    step = 1 / (255 * min(SPEC.std))
    assert float((later - usual.clamp(-1, 1)).abs().max()) <= step  # a mean and deviation of a half: from -1 to 1
    assert torch.equal(normalized(SPEC, usual), usual)


def test_seeds_reach_the_noise_of_erased_pixels(digits_folder: Path) -> None:
    split = open_images(DataConfig(source=str(digits_folder))).train
    augment = STRONG_AUGMENT.model_copy(update={"normalize_on": "device", "random_erasing": 1.0})
    transform = train_transform(augment, SPEC)

    def view(seed: int) -> torch.Tensor:
        with seeded(seed, 0, 0):
            return transform(split[0][0])

    assert torch.equal(view(0), view(0))
    assert not torch.equal(view(0), view(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_normalises_to_the_same_bits_and_waits_for_nothing() -> None:
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    there = pixels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = normalized(SPEC, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), normalized(SPEC, pixels))
