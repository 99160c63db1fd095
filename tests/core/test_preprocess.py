"""The one preprocessing, held to timm's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from timm.data import create_transform

from core.errors import DataError
from core.preprocess import PreprocessSpec, open_image

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


@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.9, 0.875, 0.5])
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (17, 41), (224, 224), (256, 256), (31, 30), (640, 97)])
def test_equals_timm_on_odd_images(shape: tuple[int, int], crop_pct: float) -> None:
    assert_same(PreprocessSpec(size=224, crop_pct=crop_pct, mean=MEAN, std=STD), noise(*shape))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_equals_timm_for_every_filter_and_image_mode(interpolation: str, mode: str) -> None:
    spec = PreprocessSpec(size=48, crop_pct=0.9, interpolation=interpolation, mean=MEAN, std=STD)
    assert_same(spec, noise(61, 83, mode))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 70), st.floats(0.3, 1.0))
def test_equals_timm_everywhere(width: int, height: int, size: int, crop_pct: float) -> None:
    assert_same(PreprocessSpec(size=size, crop_pct=crop_pct, mean=MEAN, std=STD), noise(width, height))


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
