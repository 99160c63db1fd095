from __future__ import annotations

import numpy as np
import pytest

from vitcompress.core.bits import packed, unpacked


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 10_000])
def test_answers_come_back(count: int) -> None:
    answers = np.random.default_rng(count).random(count) < 0.5
    text = packed(answers)
    assert np.array_equal(unpacked(text, count), answers)
    assert len(text) <= count / 6 + 4


@pytest.mark.parametrize(("text", "count"), [("!", 8), ("AA==", 9), ("AAAA", 8), ("", 1)])
def test_other_text_is_refused(text: str, count: int) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes of answers"):
        unpacked(text, count)
