"""Names that changed: an old one works for a minor version more, with one warning (docs/machine-readable.md)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from vitcompress.core.errors import UsageError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class OldName(FutureWarning):
    """A name was given that a later version does not have."""


@dataclass(frozen=True)
class Renamed:
    """A name that changed."""

    old: str
    new: str
    gone: str
    """The first version without the old name, such as ``0.3``."""

    def tell(self, *, both: bool = False) -> None:
        """Warn; a UsageError is raised where the new name is given too."""
        if both:
            raise UsageError(f"'{self.old}' is the old name of '{self.new}', and both are given; give '{self.new}'.")
        said = f"'{self.old}' is called '{self.new}' now; version {self.gone} will not have the old name."
        warnings.warn(said, OldName, stacklevel=3)


SETTINGS: tuple[Renamed, ...] = ()
"""Of settings, dotted."""
OPTIONS: tuple[Renamed, ...] = ()
"""Of options of any command, without their dashes."""


def new_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Give nested settings their present names, in place; return them."""
    for each in SETTINGS:
        (*path, last), (*place, name) = each.old.split("."), each.new.split(".")
        found: Any = values
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict) and last in found:
            holder = functools.reduce(lambda inner, part: inner.setdefault(part, {}), place, values)
            each.tell(both=name in holder)
            holder[name] = found.pop(last)
    return values


def new_option(name: str) -> str:
    """Return the present name of an option; click asks for that of each."""
    for each in OPTIONS:
        if name == each.old:
            each.tell()
            return each.new
    return name


def renamed_arguments(*renamed: Renamed) -> Callable[[Callable[Given, Answer]], Callable[Given, Answer]]:
    """Return a decorator that lets a function take old names of its arguments."""

    def decorate(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
        @functools.wraps(function)
        def called(*given: Given.args, **named: Given.kwargs) -> Answer:
            for each in (each for each in renamed if each.old in named):
                each.tell(both=each.new in named)
                named[each.new] = named.pop(each.old)
            return function(*given, **named)

        return called

    return decorate
