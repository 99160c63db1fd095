"""Which losses there are, by their names in the config (torch-free); built in, or of other packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal

from vitcompress.core.extensions import load

GROUP = "vitcompress.losses"
"""The entry points' group; their names are ``features.NAME`` and ``logits.NAME``."""

Place = Literal["features", "logits"]
"""What a loss compares: taps ``[B, C, H, W]`` of one shape in float32, or logits ``[B, K]`` at a temperature."""


def names(place: Place) -> list[str]:
    """Return the names of all losses of ``place``, the built-in ones first."""
    added = {point.name.removeprefix(f"{place}.") for point in _added(place)}
    return [*built_in(place), *sorted(added - set(built_in(place)))]


def check(place: Place, name: str) -> str:
    """Return ``name``; a ValueError that lists all losses of ``place`` is raised if there is none of that name."""
    if name not in built_in(place) and name not in names(place):
        raise ValueError(f"given '{name}'; there are {', '.join(names(place))} (other packages add theirs as {GROUP})")
    return name


@lru_cache
def loss_of(place: Place, name: str) -> Callable[..., Any]:
    """Return the function of a loss: of two taps, or of two logits and the temperature, to a scalar.

    Raises ValueError as ``check`` does, and UsageError for another package's loss that cannot be loaded.
    """
    if check(place, name) in built_in(place):
        function: Callable[..., Any] = import_module(f"{__package__}.{place}.{name}").loss
    else:
        function = load(next(point for point in _added(place) if point.name == f"{place}.{name}"), "loss")
    return function


def built_in(place: Place) -> list[str]:
    """Return the names of our own losses of ``place``."""
    return [module.name for module in iter_modules([str(Path(__file__).parent / place)])]


def _added(place: Place) -> list[Any]:
    return [point for point in entry_points(group=GROUP) if point.name.startswith(f"{place}.")]
