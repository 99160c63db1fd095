from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.config import RunConfig, load_layer, merge, validate

MODELS = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}}


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Iterator[None]:
    """Nobody asks the Hugging Face hub what it has: an answer takes seconds, and nothing here depends on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.is_offline_mode", lambda: True)
        yield


@pytest.fixture
def digits() -> RunConfig:
    """The digits recipe as requested, nothing resolved."""
    return validate(merge(load_layer("digits"), MODELS))


@pytest.fixture
def folder() -> RunConfig:
    """Everything at its default, a folder as source."""
    return validate(merge(MODELS, {"data": {"source": "/images"}, "teacher": {"init": "scratch"}}))
