"""The one preprocessing, held to timm's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from timm.data import create_transform

from core.errors import DataError
from core.images import check_header, open_image
from core.preprocess import CropMode, PreprocessSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def timm_input(spec: PreprocessSpec, image: Image.Image) -> np.ndarray:
    transform = create_transform(
        spec.size,
        is_training=False,
        interpolation=spec.interpolation,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        mean=spec.mean,
        std=spec.std,
    )
    return transform(image.convert("RGB")).numpy()


def assert_same(spec: PreprocessSpec, image: Image.Image) -> None:
    found, wanted = spec.apply(image), timm_input(spec, image)
    assert found.dtype == np.float32
    assert found.shape == wanted.shape == (3, spec.size, spec.size)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    levels = wanted * np.reshape(spec.std, (3, 1, 1)) + np.reshape(spec.mean, (3, 1, 1))  # one level is 1/255
    np.testing.assert_array_equal(spec.pixels(image), np.round(levels * 255).transpose(1, 2, 0).astype(np.uint8))


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.9, 0.875, 0.5])
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (17, 41), (224, 224), (256, 256), (31, 30), (640, 97)])
def test_equals_timm_on_odd_images(shape: tuple[int, int], crop_pct: float, crop_mode: CropMode) -> None:
    assert_same(PreprocessSpec(size=224, crop_pct=crop_pct, crop_mode=crop_mode, mean=MEAN, std=STD), noise(*shape))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_equals_timm_for_every_filter_and_image_mode(interpolation: str, mode: str) -> None:
    spec = PreprocessSpec(size=48, crop_pct=0.9, interpolation=interpolation, mean=MEAN, std=STD)
    assert_same(spec, noise(61, 83, mode))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 70),
    st.floats(0.3, 1.0),
    st.sampled_from(["center", "squash"]),
)
def test_equals_timm_everywhere(width: int, height: int, size: int, crop_pct: float, crop_mode: CropMode) -> None:
    spec = PreprocessSpec(size=size, crop_pct=crop_pct, crop_mode=crop_mode, mean=MEAN, std=STD)
    assert_same(spec, noise(width, height))


def test_squashing_keeps_what_a_centre_crop_cuts_off() -> None:
    image = Image.new("RGB", (90, 30))
    image.paste((255, 255, 255), (0, 0, 30, 30))
    left = {
        mode: PreprocessSpec(size=30, crop_mode=mode, mean=MEAN, std=STD).pixels(image)[:, :5].mean()
        for mode in ("center", "squash")
    }
    assert left == {"center": 0, "squash": 255}


def test_a_spec_written_before_crop_modes_means_the_centre_crop() -> None:
    spec = PreprocessSpec.model_validate_json('{"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]}')
    assert spec.crop_mode == "center"


def test_a_model_that_eats_pixels_gets_pixels() -> None:
    image = noise(61, 83)
    spec = PreprocessSpec(size=48, crop_pct=0.9, mean=MEAN, std=STD)
    found = spec.model_copy(update={"input": "uint8"}).apply(image)
    assert (found.dtype, found.shape) == (np.uint8, (48, 48, 3))
    normalised = (found.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(spec.apply(image), normalised.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_a_spec_written_before_pixels_were_an_input_is_float() -> None:
    spec = PreprocessSpec.model_validate_json('{"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]}')
    assert spec.input == "float"


def test_normalisation_by_hand() -> None:
    spec = PreprocessSpec(size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    image = Image.new("RGB", (2, 2), (255, 0, 51))
    np.testing.assert_allclose(spec.apply(image)[:, 0, 0], [1.0, -0.25, 0.1], rtol=1e-6)


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(ValidationError):
        PreprocessSpec(size=2, interpolation="cubic", mean=MEAN, std=STD)  # type: ignore[arg-type]


def test_open_image_gives_rgb(tmp_path: Path) -> None:
    noise(5, 4, "L").save(tmp_path / "grey.png")
    image = open_image(tmp_path / "grey.png")
    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        open_image(tmp_path / "gone.png")


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "bad.png"
    if content == "half":
        noise(64, 64).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png cannot be read \(.+\); replace or remove the file"):
        open_image(path)


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
    with pytest.raises(
        DataError, match=rf"deep\.tif has 32-bit values from {span} \(Pillow's mode I\).*convert it to 8"
    ):
        open_image(path)


@pytest.mark.parametrize("read", [open_image, check_header])
def test_floating_point_pixels_are_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(
        DataError, match=r"float\.tif has 32-bit floating-point values \(Pillow's mode F\).*convert it to 8"
    ):
        read(tmp_path / "float.tif")


@pytest.mark.parametrize("read", [open_image, check_header])
@pytest.mark.parametrize(
    "error",
    [OverflowError("too large"), MemoryError(), Image.DecompressionBombError("bomb"), EOFError(), ValueError("x")],
)
def test_whatever_pillow_raises_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], error: Exception
) -> None:
    def opened(path: Path) -> None:
        raise error

    monkeypatch.setattr(Image, "open", opened)
    reason = str(error) or type(error).__name__
    with pytest.raises(DataError, match=rf"x\.png cannot be read \({reason}\); replace"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("read", [open_image, check_header])
def test_a_decompression_bomb_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    noise(40, 40).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png cannot be read \(Image size \(1600 pixels\) exceeds limit"):
        read(tmp_path / "bomb.png")
