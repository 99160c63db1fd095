"""What `compress models` lists is what `shape_of` takes."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
import timm

from core.errors import UsageError
from core.records import Strategy
from pipeline.listing import _MODULES, usable_models
from pipeline.resolve_network import resolve_network
from stages.models.geometry import check_strategy, shape_by_name


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


def answers(name: str) -> list[str]:
    """How a name is taken, as a network of each geometry and as a student of each strategy: `accepted` or `refused`.

    Anything but this product's own error is left to fail the test.
    """
    found = []
    for geometry in ("full", "reduced"):
        try:
            shape = resolve_network(name, {}, geometry)[2]
        except UsageError:
            found.append("refused")
            continue
        found.append("accepted")
        for strategy in get_args(Strategy):
            try:
                check_strategy(strategy, name, shape, 2 * shape.width)
            except UsageError:
                found.append("refused")
    return found


@pytest.mark.parametrize("name", ["hiera_tiny_224", "xcit_nano_12_p8_224", "focalnet_tiny_srf", "resnet18"])
def test_families_that_look_like_others_are_refused_at_the_reduced_geometry(name: str) -> None:
    assert answers(name)[-1] == "refused"


@pytest.mark.slow
def test_every_name_of_timm_is_accepted_or_refused_by_our_own_error() -> None:
    taken = Counter(answers(name)[0] for name in timm.list_models())
    assert taken["accepted"] >= len(usable_models("*"))
    assert taken["refused"] > 0
