"""The handwritten digits that scikit-learn brings (torch-free)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.splits import Images, ListedSplit

EMBEDDED = "digits"
_SIZE = 32


class Digits(Source):
    """1,797 images of 10 classes, in memory."""

    name = EMBEDDED

    def owns(self, source: str) -> bool:
        """Return whether the source is ``digits``."""
        return source == EMBEDDED

    def images(self, config: DataConfig) -> Images:
        """Return the digits, none of them held out yet."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        opened = [digit_image(pixels) for pixels in digits.images]
        items = [(index, int(label)) for index, label in enumerate(digits.target)]
        return Images(tuple(str(digit) for digit in range(10)), ListedSplit(items, opened.__getitem__), None)

    def state(self, config: DataConfig) -> list[Any]:
        """Return the version of scikit-learn, which the pixels ship with."""
        return [version("scikit-learn")]


def digit_image(pixels: np.ndarray[Any, np.dtype[np.float64]]) -> Image.Image:
    """Return one scikit-learn digit (8 x 8, values 0 to 16) as a 32 x 32 RGB image."""
    grey = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
    return grey.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC).convert("RGB")
