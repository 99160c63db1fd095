from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import ListedSplit, StreamSplit, open_images
from vitcompress.stages.images.thumbnails import thumbnail, thumbnails


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("size", "wanted"), [((500, 375), (96, 72)), ((60, 60), (60, 60)), ((48, 30), (96, 60)), ((3000, 2), (96, 1))]
)
def test_the_whole_image_in_96_pixels(size, wanted) -> None:
    assert opened(thumbnail(Image.new("RGB", size))).size == wanted


def test_a_digit_is_enlarged_pixel_by_pixel() -> None:
    image, _ = open_images(DataConfig()).val[0]
    found = opened(thumbnail(image))
    assert (found.size, found.format) == ((96, 96), "WEBP")
    np.testing.assert_array_equal(np.asarray(found.convert("RGB"))[1::3, 1::3], np.asarray(image))


def test_only_the_wanted_images_are_opened_and_none_of_a_stream() -> None:
    keys: list[int] = []

    def load(key: int) -> Image.Image:
        keys.append(key)
        return Image.new("RGB", (8, 8))

    made, why = thumbnails(ListedSplit([(key, key) for key in range(10)], load), [2, 7])
    assert (sorted(made), why, keys) == ([2, 7], "", [2, 7])
    made, why = thumbnails(StreamSplit([], 10, 1000), [2])
    assert (made, why) == ({}, "there are no pictures of a source that can only be read in order")
