"""What `compress models` lists is what `shape_of` takes."""

from __future__ import annotations

import pytest
import timm

from core.errors import UsageError
from pipeline.listing import _MODULES, usable_models
from stages.models.geometry import shape_by_name


def left_out() -> list[str]:
    known = {name for module in _MODULES for name in timm.list_models(module=module)}
    return sorted(known - set(usable_models("*")))


def test_a_sample_of_what_is_listed_has_something_to_tap() -> None:
    sample = usable_models("*")[::15]
    assert len(sample) > 15
    for name in sample:
        assert shape_by_name(name, {}).depth > 0


def test_only_what_is_refused_is_left_out() -> None:
    names = left_out()
    assert "vit_small_patch16_18x2_224" in names
    for name in names:
        with pytest.raises(UsageError, match="no transformer blocks or stages to tap"):
            shape_by_name(name, {})


@pytest.mark.slow
def test_everything_listed_has_something_to_tap() -> None:
    for name in usable_models("*"):
        assert shape_by_name(name, {}).depth > 0
