"""The one preprocessing, held to timm's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_images import noise
from PIL import Image
from timm.data import create_transform

from vitcompress.core.preprocess import CropMode, PreprocessSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("shape", [(500, 375), (17, 41), (224, 224), (640, 97)])
def test_equals_timm_at_full_size(shape: tuple[int, int], crop_pct: float, crop_mode: CropMode) -> None:
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


def test_a_model_that_eats_pixels_gets_pixels() -> None:
    image = noise(61, 83)
    spec = PreprocessSpec(size=48, crop_pct=0.9, mean=MEAN, std=STD)
    found = spec.model_copy(update={"input": "uint8"}).apply(image)
    assert (found.dtype, found.shape) == (np.uint8, (48, 48, 3))
    normalised = (found.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(spec.apply(image), normalised.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_normalisation_by_hand() -> None:
    spec = PreprocessSpec(size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    image = Image.new("RGB", (2, 2), (255, 0, 51))
    np.testing.assert_allclose(spec.apply(image)[:, 0, 0], [1.0, -0.25, 0.1], rtol=1e-6)
