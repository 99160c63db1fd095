"""What is known of every image, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class PerImage:
    """An array ``[images, ...]`` filled chunk by chunk.

    All of it is there from the start: small arrays that live on among large temporary ones would keep their memory
    from being used again, half a megabyte an image and tap (``benchmarks/analysis.py --memory``).
    """

    def __init__(self, images: int, *shape: int, dtype: DTypeLike = np.float64) -> None:
        self._values = np.empty((images, *shape), dtype)
        self._count = 0

    def add(self, values: NDArray[Any]) -> None:
        """The next images' values ``[B, ...]``."""
        self._values[self._count : self._count + len(values)] = values
        self._count += len(values)

    def all(self) -> NDArray[Any]:
        """Of the images so far."""
        return self._values[: self._count]
