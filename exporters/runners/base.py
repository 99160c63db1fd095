"""What every runner promises, and the checks before anything runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import BundleError, UsageError


class Runner(ABC):
    """A classifier loaded from a file: images to float32 logits ``[B, K]``. Use it in a ``with``."""

    path: Path
    input: Input = "float"
    """What it takes, as the file says: normalised float32 ``[B, C, S, S]``, or pixels, uint8 ``[B, S, S, C]``."""
    channels: int = 3
    """C; 3 are RGB."""
    size: int
    """Side of the square input, pixels."""
    classes: int
    """K, the number of logits."""
    max_batch: int | None = None
    """Largest batch that can be run; None when any can."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what the runner holds; again is harmless. It cannot be used afterwards."""

    @abstractmethod
    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits of images that are known to fit."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image: ``(C, size, size)``, or ``(size, size, C)`` for pixels."""
        square = (self.size, self.size)
        return (*square, self.channels) if self.input == "uint8" else (self.channels, *square)

    @property
    def image_dtype(self) -> np.dtype[Any]:
        """Dtype of the images."""
        return np.dtype(np.uint8 if self.input == "uint8" else np.float32)

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits ``[B, K]``, float32, of ``images`` ``[B, *image_shape]`` of ``image_dtype``.

        A UsageError is raised for a dtype, shape or batch size that the file does not take, a ResultError where it
        fails.
        """
        self._check(images)
        return self._infer(images)

    def _check(self, images: NDArray[Any]) -> None:
        top = len(images) if self.max_batch is None else self.max_batch
        fits = images.dtype == self.image_dtype and images.shape[1:] == self.image_shape
        if not (fits and 1 <= len(images) <= top):
            pixels = f"{'RGB ' * (self.channels == 3)}pixels" if self.input == "uint8" else "normalised images"
            batch = f"1 to {self.max_batch or 'any'}"
            wanted = ", ".join(map(str, self.image_shape))
            raise UsageError(
                f"{self.path.name} takes {pixels}, {self.image_dtype} [{batch}, {wanted}]; {images.dtype} "
                f"{list(images.shape)} was given."
            )


def input_of(dtype: str, shape: list[Any], path: Path) -> tuple[Input, int, int]:
    """Return what a file takes, the side of its images in pixels, and C; a BundleError is raised if it takes none."""
    if len(shape) == 4 and all(isinstance(one, int) and one > 0 for one in shape[1:]):
        if dtype == "float32" and shape[2] == shape[3]:
            return "float", shape[2], shape[1]
        if dtype == "uint8" and shape[1] == shape[2]:
            return "uint8", shape[1], shape[3]
    raise BundleError(
        f"{path} is no image classifier: it takes {dtype or 'another dtype'} {shape}, "
        "not float32 [batch, C, size, size] or uint8 [batch, size, size, C]."
    )
