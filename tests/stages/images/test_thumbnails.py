from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vitcompress.stages.images import thumbnails as module
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import ListedSplit, StreamSplit, open_images
from vitcompress.stages.images.thumbnails import thumbnail, thumbnails

CLASSES = np.arange(10)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def stream(labels=range(10)) -> StreamSplit:
    return StreamSplit([(Image.new("RGB", (32, 32), (20 * label,) * 3), label) for label in labels], 10, 1000)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((500, 375), (96, 72)),
        ((96, 40), (96, 40)),
        ((60, 60), (60, 60)),
        ((48, 30), (96, 60)),
        ((32, 8), (96, 24)),
        ((3000, 2), (96, 1)),
    ],
)
def test_the_whole_image_in_96_pixels(size, wanted) -> None:
    assert opened(thumbnail(Image.new("RGB", size))).size == wanted


@pytest.mark.parametrize(("webp", "kind"), [(True, "WEBP"), (False, "PNG")])
def test_a_digit_is_enlarged_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch, webp: bool, kind: str) -> None:
    monkeypatch.setattr(module.features, "check", lambda _: webp)
    image, _ = open_images(DataConfig()).val[0]
    found = opened(thumbnail(image))
    assert (found.size, found.format) == ((96, 96), kind)
    assert module.suffix() == f".{kind.lower()}"
    np.testing.assert_array_equal(np.asarray(found.convert("RGB"))[1::3, 1::3], np.asarray(image))


def test_only_the_wanted_images_are_opened() -> None:
    keys: list[int] = []

    def load(key: int) -> Image.Image:
        keys.append(key)
        return Image.new("RGB", (8, 8))

    made, why = thumbnails(ListedSplit([(key, key) for key in range(10)], load), [2, 7], CLASSES)
    assert (sorted(made), why, keys) == ([2, 7], "", [2, 7])


def test_a_stream_is_read_to_the_last_wanted_image_and_no_further() -> None:
    read: list[int] = []

    def items():
        for image, label in stream():
            read.append(label)
            yield image, label

    made, why = thumbnails(StreamSplit(items(), 10, 1000), [1, 4], CLASSES)
    assert (sorted(made), why, read) == ([1, 4], "", [0, 1, 2, 3, 4])
    assert opened(made[4]).convert("RGB").getpixel((0, 0)) == (80, 80, 80)
    assert thumbnails(StreamSplit(items(), 10, 1000), [], CLASSES) == ({}, "")
    assert read == [0, 1, 2, 3, 4]


def test_a_long_stream_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAM_READ", 5)
    made, why = thumbnails(stream(), [1, 4, 5], CLASSES)
    assert sorted(made) == [1, 4]
    assert why == "the source can only be read in order; pictures are of its first 5 images"


def test_a_stream_in_another_order_shows_nothing_wrong() -> None:
    made, why = thumbnails(stream([0, 2, 1, *range(3, 10)]), [0, 4], CLASSES)
    assert made == {}
    assert "not give its images in the same order twice" in why
