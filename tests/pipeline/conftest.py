from __future__ import annotations

import pytest

from vitcompress.pipeline.config import RunConfig, load_layer, merge, validate

MODELS = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}}


@pytest.fixture
def digits() -> RunConfig:
    """The digits recipe as requested, nothing resolved."""
    return validate(merge(load_layer("digits"), MODELS))


@pytest.fixture
def folder() -> RunConfig:
    """Everything at its default, a folder as source."""
    return validate(merge(MODELS, {"data": {"source": "/images"}, "teacher": {"init": "scratch"}}))
