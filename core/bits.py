"""Yes-or-no answers as text, an eighth of a byte each: what a paired test on the same images needs of a model."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray


def packed(answers: NDArray[np.bool_]) -> str:
    """``answers [N]`` as base64 of their bits, the first in the highest bit of the first byte."""
    return base64.b64encode(np.packbits(answers).tobytes()).decode()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """The ``count`` answers, bool ``[count]``, that ``packed`` made ``text`` of.

    Raises:
        ValueError: ``text`` is not base64, or holds another number of answers.
    """
    try:
        bits = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if len(bits) != -(-count // 8):
        raise ValueError(f"{len(bits)} bytes of answers, where {count} images need {-(-count // 8)}")
    return np.unpackbits(bits, count=count).astype(np.bool_)
