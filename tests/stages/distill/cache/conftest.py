from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vitcompress.stages.distill.cache import chunks


@pytest.fixture(scope="module", autouse=True)
def small_files() -> Iterator[None]:
    """Files of 8 rows, and no fsync: a killed process, unlike a cut of power, needs none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(chunks, "_MAX_ROWS", 8)
        yield
