"""Yes-or-no answers as text, an eighth of a byte each: what a paired test on the same images needs of a model."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray


def packed(answers: NDArray[np.bool_]) -> str:
    """Return ``answers [N]`` as base64 of their bits, the first in the highest bit of the first byte."""
    return base64.b64encode(np.packbits(answers).tobytes()).decode()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """Return the ``count`` answers (bool) of a ``packed`` text; a ValueError is raised if it holds others."""
    bits = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(bits) != -(-count // 8):
        raise ValueError(f"{len(bits)} bytes of answers, where {count} images need {-(-count // 8)}")
    return np.unpackbits(bits, count=count).astype(np.bool_)
