"""How files become pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nasty_images import noise, oriented, write_nasty
from PIL import Image, ImageOps

from vitcompress.core.errors import DataError
from vitcompress.core.images import ImageError, check_header, open_image


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        open_image(tmp_path / "gone.png")


def save_deep(path: Path, mode: str, values: list[int]) -> Path:
    """A grey image of 32-bit (mode I) or 16-bit pixels."""
    dtype = {"I": np.int32, "I;16": np.uint16}[mode]
    Image.fromarray(np.array([values], dtype=dtype)).save(path)
    return path


@pytest.mark.parametrize(("name", "mode"), [("deep.png", "I;16"), ("deep.tif", "I;16"), ("deep.tif", "I")])
def test_16_bits_are_scaled_and_not_cut_off(tmp_path: Path, name: str, mode: str) -> None:
    path = save_deep(tmp_path / name, mode, [0, 255, 256, 0x80FF, 65535])
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_dark_16_bit_image_may_open_as_32_bits(tmp_path: Path) -> None:
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n\x00\x00\x00\xff")
    with Image.open(tmp_path / "dark.pgm") as image:
        assert image.mode == "I"
    assert not np.asarray(open_image(tmp_path / "dark.pgm")).any()


@pytest.mark.parametrize(
    ("values", "span"), [([-1, 9000], "-1 to 9000"), ([0, 65536], "0 to 65536"), ([0, 255], "0 to 255")]
)
def test_32_bits_that_are_not_16_are_refused(tmp_path: Path, values: list[int], span: str) -> None:
    path = save_deep(tmp_path / "deep.tif", "I", values)
    with pytest.raises(DataError, match=rf"deep\.tif cannot be read \(32-bit values from {span} .*convert it to 8"):
        open_image(path)


@pytest.mark.parametrize("read", [open_image, check_header])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OverflowError("too large"), "too large"),
        (MemoryError(), "MemoryError"),
        (
            Image.DecompressionBombError("Image size (250000000 pixels) exceeds limit of 200000000 pixels, could be"),
            "it has 250 megapixels, more than the 200 that are decoded; scale it down",
        ),
    ],
)
def test_whatever_pillow_raises_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], error: Exception, reason: str
) -> None:
    monkeypatch.setattr(Image, "open", lambda path: (_ for _ in ()).throw(error))
    with pytest.raises(DataError, match=rf"x\.png cannot be read \({reason}\); replace"):
        read(tmp_path / "x.png")


def test_a_file_is_turned_as_its_exif_data_says(tmp_path: Path) -> None:
    upright = noise()
    for orientation, method in {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.items():
        path = tmp_path / f"{orientation}.png"
        upright.transpose(method).save(path, exif=oriented(orientation))  # as a camera held that way would
        np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(upright))


def test_what_is_transparent_is_white_and_what_is_half_is_between(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (0, 100, 0, 255))
    image.putpixel((1, 0), (0, 100, 0, 0))
    image.putpixel((2, 0), (0, 100, 0, 51))
    image.save(tmp_path / "clear.png")
    assert np.asarray(open_image(tmp_path / "clear.png")).tolist() == [[[0, 100, 0], [255, 255, 255], [204, 224, 204]]]


@pytest.mark.parametrize(
    ("name", "white"),
    [
        ("palette-one-clear.png", None),
        ("palette-half-clear.png", None),
        ("palette-clear.gif", None),
        ("grey-clear.png", (3, 3)),
        ("colour-clear.png", (3, 3)),
        ("deep-clear.png", (3, 3)),
        ("mode-LA.png", (0, 0)),
    ],
)
def test_every_kind_of_transparency_is_seen(tmp_path: Path, name: str, white: tuple[int, int] | None) -> None:
    write_nasty(tmp_path)
    found = np.asarray(open_image(tmp_path / name))
    if white is not None:
        assert found[white[::-1]].tolist() == [255, 255, 255]
        return
    with Image.open(tmp_path / name) as opened:
        clear = np.asarray(opened.convert("RGBA"))[..., 3] == 0
    assert clear.any()
    assert (found[clear] == 255).all()


def test_damaged_exif_data_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise().save(tmp_path / "a.png", exif=oriented(6))

    def broken(image: Image.Image, *, in_place: bool) -> None:
        raise TypeError("not what it seems")

    monkeypatch.setattr(ImageOps, "exif_transpose", broken)
    assert open_image(tmp_path / "a.png").size == (40, 30)


def test_a_truncated_file_is_not_taken_for_one_with_damaged_exif_data(tmp_path: Path) -> None:
    noise(200, 200).save(tmp_path / "a.jpg", exif=oriented(6), quality=95)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:5000])
    with pytest.raises(ImageError, match=r"a\.jpg cannot be read \(image file is truncated") as caught:
        open_image(tmp_path / "a.jpg")
    assert caught.value.reason.startswith("image file is truncated")
